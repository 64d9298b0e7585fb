//! What sealing, reserving and mapping memory promise.
//!
//! Runs in: the test process.

use super::*;

#[test]
fn sealed_memory_is_not_written_by_a_new_mapping_or_shrunk() {
    let fd = create("test", 4096).unwrap();
    let ours = Map::new(fd.as_fd(), 4096, Access::Write).unwrap();
    seal_future_writes(fd.as_fd()).unwrap();
    assert_eq!(Map::new(fd.as_fd(), 4096, Access::Write).unwrap_err(), Errno::EPERM);
    assert_eq!(ftruncate(&fd, 0), Err(Errno::EPERM));
    let theirs = Map::new(fd.as_fd(), checked_len(fd.as_fd()).unwrap(), Access::Read).unwrap();
    ours.write(100, b"hello");
    assert_eq!(theirs.lend(100, 5), b"hello");
}

#[test]
fn frozen_memory_cannot_be_written() {
    let fd = create_empty("test").unwrap();
    append(fd.as_fd(), 3, &[MaybeUninit::new(7); 5000]).unwrap();
    let map = Map::new(fd.as_fd(), 5003, Access::Frozen).unwrap();
    let writable = Map::new(fd.as_fd(), 5003, Access::Write).unwrap();
    assert_eq!(seal_writes(fd.as_fd()), Err(Errno::EBUSY));
    drop(writable);
    seal_writes(fd.as_fd()).unwrap();
    assert_eq!(Map::new(fd.as_fd(), 5003, Access::Write).unwrap_err(), Errno::EPERM);
    assert_eq!(append(fd.as_fd(), 0, &[MaybeUninit::new(1)]), Err(Errno::EPERM));
    assert_eq!(resize(fd.as_fd(), 100), Err(Errno::EPERM));
    assert!(inspect(fd.as_fd()).unwrap().frozen);
    assert_eq!((map.lend(0, 4), map.lend(5000, 3)), (&[0, 0, 0, 7][..], &[7; 3][..]));
}

#[test]
fn memory_of_no_fixed_size_is_refused() {
    let fd = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    ftruncate(&fd, 4096).unwrap();
    assert_eq!(checked_len(fd.as_fd()), Err(Errno::EPERM));
}

#[test]
fn memory_is_there_once_reserved_and_goes_once_given_back() {
    let fd = create_sparse("test", 1 << 36).unwrap();
    let blocks = || fstat(&fd).unwrap().st_blocks * 512;
    assert_eq!((blocks(), checked_len(fd.as_fd())), (0, Ok(1 << 36)));
    reserve_part(fd.as_fd(), 1 << 35, 65_536).unwrap();
    let map = Map::part(fd.as_fd(), 1 << 35, 65_536).unwrap();
    map.write(0, b"here");
    assert_eq!(blocks(), 65_536);
    punch_hole(fd.as_fd(), 1 << 35, 65_536);
    assert_eq!(blocks(), 0);
    reserve_part(fd.as_fd(), 1 << 35, 65_536).unwrap();
    assert_eq!(map.lend(0, 4), [0; 4]);
    assert_eq!(reserve_part(fd.as_fd(), usize::MAX, 1), Err(Errno::ENOMEM));
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    assert_eq!(create("test", 1 << 60).unwrap_err(), Errno::ENOMEM);
}

#[test]
#[should_panic(expected = "lies outside")]
fn a_range_outside_is_refused() {
    let fd = create("test", 4096).unwrap();
    Map::new(fd.as_fd(), 4096, Access::Read).unwrap().lend(4090, 10);
}
