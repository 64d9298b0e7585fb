//! What the codec promises: what goes in comes out, big payloads are copied once, and no bytes, however corrupt, make it
//! panic or ask for memory that they do not pay for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    AsBorrowed, AsPlain, Codec, CodecError, Encoded, Format, Log, Plain, Reader, Spill, ViaSerde, Writer, codec, loan,
};

/// A spill in ordinary memory that notes what it was asked for.
#[derive(Default)]
struct Heap {
    memory: Vec<u8>,
    asked: Vec<(usize, usize)>,
    limit: Option<usize>,
}

impl Spill for Heap {
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()> {
        self.asked.push((written, capacity));
        if self.limit.is_some_and(|limit| capacity > limit) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.memory.truncate(written);
        self.memory.resize(capacity, 0xee);
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

fn written(threshold: usize, write: impl FnOnce(&mut Writer<'_>) -> Result<(), CodecError>) -> Vec<u8> {
    let mut heap = Heap::default();
    let mut writer = Writer::new(vec![1, 2, 3], threshold, &mut heap);
    write(&mut writer).unwrap();
    let len = writer.len();
    let bytes = match writer.finish().unwrap() {
        Encoded::Small(bytes) => bytes,
        Encoded::Spilled(len) => heap.memory[..len].to_vec(),
    };
    assert_eq!(bytes.len(), len);
    bytes
}

/// Calls `read` with a copy of `bytes` that lies as payloads lie.
fn aligned<R>(bytes: &[u8], read: impl FnOnce(&[u8]) -> R) -> R {
    let mut memory = vec![0_u128; bytes.len().div_ceil(size_of::<u128>())];
    let copy = &mut bytemuck::cast_slice_mut(&mut memory)[..bytes.len()];
    copy.copy_from_slice(bytes);
    read(copy)
}

/// Sends `value` by way of every kind of buffer, and spoils its bytes in every way that is cheap to try.
fn crosses<T, F>(format: F, value: &T)
where
    T: Debug,
    F: for<'a> Format<'a, T> + Copy,
{
    let small = written(usize::MAX, |writer| codec::<T, _>(format).encode(value, writer, again::<T, F>));
    for threshold in [0, 1, 7, 64] {
        assert_eq!(written(threshold, |writer| codec::<T, _>(format).encode(value, writer, again::<T, F>)), small);
    }
    let decoded = aligned(&small, |bytes| codec::<T, _>(format).decode_whole(bytes)).unwrap();
    assert_eq!(format!("{decoded:?}"), format!("{value:?}"));
    for len in 0..small.len() {
        assert!(aligned(&small[..len], |bytes| codec::<T, _>(format).decode_whole(bytes)).is_err(), "cut to {len}");
    }
    let longer = [&small[..], &[0]].concat();
    assert!(aligned(&longer, |bytes| codec::<T, _>(format).decode_whole(bytes)).is_err(), "a byte too many");
    for at in 0..small.len() {
        for spoiled in [0x01, 0x80, 0xff] {
            let mut bytes = small.clone();
            bytes[at] ^= spoiled;
            // Any outcome but a panic or an abort.
            drop(aligned(&bytes, |bytes| codec::<T, _>(format).decode_whole(bytes)));
        }
    }
}

fn never(_: &mut Reader<'_>, _: &mut Log<'_>) -> Result<(), CodecError> {
    unreachable!("plain values are not tried")
}

/// What the macro would write.
fn again<T, F: for<'a> Format<'a, T>>(reader: &mut Reader<'_>, log: &mut Log<'_>) -> Result<(), CodecError> {
    F::log(&F::decode(reader)?, log)
}

fn both<T>(value: &T)
where
    T: Debug + Plain + Serialize + for<'a> Deserialize<'a>,
{
    crosses(AsPlain, value);
    crosses(ViaSerde, value);
}

#[test]
fn plain_values_cross_in_both_formats() {
    both(&f64::from_bits(0x7ff8_0000_0000_beef));
    both(&f32::NEG_INFINITY);
    both(&(i128::MIN + 1));
    both(&usize::MAX);
    both(&'\u{10ffff}');
    both(&true);
    both(&());
    both(&String::from("grün"));
    both(&String::new());
    both(&vec![1_u8, 2, 3]);
    both(&Vec::<f64>::new());
    both(&vec![u128::MAX, 1]);
    both(&vec![0_i16; 33].into_boxed_slice());
    both(&PathBuf::from("a/b"));
    both(&Some(Ok::<Option<u8>, String>(Some(3))));
    both(&Some(Err::<Option<u8>, String>("no".into())));
    both(&Some(Ok::<Option<u8>, String>(None)));
    both(&None::<Result<u8, ()>>);
    both(&[1.5_f32; 7]);
    crosses(AsPlain, &[[1_u64; 3]; 40]);
    crosses(AsPlain, &[0_u8; 0]);
    crosses(AsPlain, &vec![[1_u16; 5]; 3]);
    crosses(AsPlain, &OsString::from_vec(vec![b'a', 0xff, 0xfe]));
    crosses(AsPlain, &PathBuf::from(OsString::from_vec(vec![0x80])));
}

#[test]
fn every_bit_of_a_number_survives() {
    let bits = [0x7ff8_0000_0000_beef, 0x7ff0_0000_0000_0001, 0x8000_0000_0000_0000];
    let values = bits.map(f64::from_bits).to_vec();
    let bytes = written(64, |writer| values.put(writer));
    let decoded: Vec<f64> = aligned(&bytes, |bytes| codec(AsPlain).decode_whole(bytes)).unwrap();
    assert_eq!(decoded.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
}

#[derive(Serialize, Deserialize, Debug, Default)]
struct Nothing;

#[derive(Serialize, Deserialize, Debug)]
enum Tree {
    Leaf,
    Name(String),
    Pair(Box<Tree>, Box<Tree>),
    Fields { bytes: Vec<u8>, map: BTreeMap<String, Option<i8>>, nothing: Nothing },
}

#[test]
fn anything_that_serde_can_own_crosses() {
    crosses(ViaSerde, &Nothing);
    crosses(ViaSerde, &vec![true, false]);
    crosses(ViaSerde, &(1_u8, "two".to_owned(), ['3'; 3], Some(())));
    crosses(ViaSerde, &HashMap::from([("key".to_owned(), vec![(1_u8, 2_i64)])]));
    let map = BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(-1))]);
    let fields = Tree::Fields { bytes: vec![1, 2], map, nothing: Nothing };
    crosses(
        ViaSerde,
        &Tree::Pair(Tree::Name("name".to_owned()).into(), Tree::Pair(Tree::Leaf.into(), fields.into()).into()),
    );
}

#[test]
fn a_corrupt_length_is_an_error_and_no_allocation() {
    fn refuses<T: Debug>(codec: &Codec<'_, T>, at: usize) {
        for length in [1_u64 << 60, u64::MAX, 1 << 40, u64::from(u32::MAX)] {
            let mut payload = vec![0; 64];
            payload[at..at + 8].copy_from_slice(&length.to_ne_bytes());
            let payload = payload.leak();
            codec.decode_whole(payload).unwrap_err();
        }
    }
    refuses(&codec::<String, _>(AsPlain), 0);
    refuses(&codec::<Vec<u128>, _>(AsPlain), 0);
    refuses(&codec::<Box<[u8]>, _>(AsPlain), 0);
    refuses(&codec::<String, _>(ViaSerde), 1);
    refuses(&codec::<Vec<u64>, _>(ViaSerde), 1);
    refuses(&codec::<Vec<String>, _>(ViaSerde), 1);
    refuses(&codec::<HashMap<u64, String>, _>(ViaSerde), 1);
    refuses(&codec::<std::ffi::CString, _>(ViaSerde), 1);
}

#[test]
fn lent_numbers_are_aligned_between_other_arguments() {
    for shift in 0..20 {
        let text = "x".repeat(shift);
        let numbers = [1.5, f64::MIN];
        let bytes = written(16, |writer| {
            loan::<str, _>(AsBorrowed).push(&text, writer, never)?;
            loan::<[f64], _>(AsBorrowed).push(&numbers, writer, never)?;
            loan::<[u8], _>(AsBorrowed).push(&[9], writer, never)
        });
        aligned(&bytes, |bytes| {
            let mut reader = Reader::new(bytes);
            assert_eq!(loan::<str, _>(AsBorrowed).pull(&mut reader).unwrap(), text);
            assert_eq!(loan::<[f64], _>(AsBorrowed).pull(&mut reader).unwrap(), numbers);
            assert_eq!(loan::<[u8], _>(AsBorrowed).pull(&mut reader).unwrap(), [9]);
            reader.finish().unwrap();
        });
    }
}

#[test]
fn owned_numbers_can_be_read_from_anywhere() {
    let values = vec![1_u64, 2, 3];
    let bytes = written(64, |writer| values.put(writer));
    for shift in 0..16 {
        let moved = [vec![0; shift], bytes.clone()].concat();
        assert_eq!(codec::<Vec<u64>, _>(AsPlain).decode_whole(&moved[shift..]).unwrap(), values);
    }
}

#[test]
fn a_big_piece_is_reserved_once_and_exactly() {
    let mut heap = Heap::default();
    let mut writer = Writer::new(Vec::new(), 1024, &mut heap);
    7_u64.put(&mut writer).unwrap();
    vec![5_u8; 100_000].put(&mut writer).unwrap();
    assert_eq!(writer.finish().unwrap(), Encoded::Spilled(100_016));
    assert_eq!(heap.asked, [(0, 100_016)]);
    assert_eq!(heap.memory[..16], [7, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x86, 1, 0, 0, 0, 0, 0]);
    assert!(heap.memory[16..].iter().all(|&byte| byte == 5));
}

#[test]
fn many_small_pieces_grow_by_doubling() {
    let mut heap = Heap::default();
    let mut writer = Writer::new(Vec::new(), 64, &mut heap);
    for number in 0..10_000_u64 {
        number.put(&mut writer).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), Encoded::Spilled(80_000));
    assert!(heap.asked.len() < 16, "{:?}", heap.asked);
    assert!((0..10_000_u64).zip(heap.memory.chunks(8)).all(|(number, bytes)| bytes == number.to_ne_bytes()));
}

#[test]
fn a_spill_without_memory_is_an_error() {
    let mut heap = Heap { limit: Some(1000), ..Heap::default() };
    let mut writer = Writer::new(Vec::new(), 64, &mut heap);
    vec![0_u8; 2000].put(&mut writer).unwrap_err();
    let mut writer = Writer::new(Vec::new(), 64, &mut heap);
    let error = codec::<Vec<Tree>, _>(ViaSerde).encode(
        &vec![Tree::Name("x".repeat(600)), Tree::Name("x".repeat(600))],
        &mut writer,
        again::<Vec<Tree>, ViaSerde>,
    );
    assert!(
        error.unwrap_err().to_string().starts_with("no memory for the payload"),
        "the codec's own words pass bincode"
    );
}

#[test]
fn elements_without_bytes_are_counted() {
    #[derive(Serialize, Deserialize, Debug, Default)]
    struct Skipped {
        #[serde(skip)]
        memory: [u64; 4],
    }
    fn decoded<T: Serialize + for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, CodecError> {
        codec::<T, _>(ViaSerde).decode_whole(&[&[0], bytes].concat())
    }
    let lengths = |lengths: &[u64]| -> Vec<u8> { lengths.iter().flat_map(|length| length.to_le_bytes()).collect() };
    let million = 1_000_000;
    assert_eq!(decoded::<Vec<()>>(&lengths(&[million])).unwrap().len(), 1_000_000);
    assert_eq!(decoded::<Vec<Skipped>>(&lengths(&[3])).unwrap()[2].memory, [0; 4]);
    for length in [u64::MAX, 1 << 40, 2 * million] {
        let error = decoded::<Vec<()>>(&lengths(&[length])).unwrap_err();
        assert!(error.to_string().contains("more elements than bytes"), "{error}");
        assert!(decoded::<Vec<Skipped>>(&lengths(&[length])).is_err());
        assert!(decoded::<BTreeMap<(), Skipped>>(&lengths(&[length])).is_err());
    }
    // All together, however they lie in one another.
    assert!(decoded::<Vec<Vec<()>>>(&lengths(&[4, million, million, million, million])).is_err());
    assert_eq!(decoded::<(Vec<()>, u8)>(&[&lengths(&[million])[..], &[7]].concat()).unwrap().1, 7);
}
