//! What processes of this machine can do to those that listen at a path: those of another user nothing, and those of the same
//! user no harm by mistake.
//!
//! Runs in: the test process; where it is root's, one of its threads acts for another user. Never: waits for time where there
//! is a condition.
#![expect(unsafe_code, reason = "one thread alone changes its user")]

use std::fs;
use std::io::{IoSlice, Read as _, Write as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::fork_copy;
use crate::support::promise;
use crate::support::scratch::Scratch;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    sendmsg, socket,
};
use process_task::channel::{Connection, Listener, RecvError, connect_unix};
use process_task::{Error, ErrorKind, Shared, process_task};

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod promises { $(#[test] fn $name() { super::promise(super::$name) })+ }
    };
}

promises! {
    peer_with_another_greeting_is_refused,
    peer_that_only_connects_is_not_accepted,
    silent_process_does_not_block_accept,
    slow_peer_of_forked_listener_does_not_block_accept,
    process_of_another_user_is_refused,
    descriptors_of_strangers_are_closed,
    packets_that_are_no_messages_are_told_from_the_end,
}

const GREETING: &[u8] = b"process-task 1 local";

fn seqpacket() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// A process that connects, without the library.
fn raw(path: &Path) -> OwnedFd {
    let socket = seqpacket();
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    socket
}

fn say(socket: &OwnedFd, bytes: &[u8], beside: &[RawFd]) -> nix::Result<()> {
    let rights = [ControlMessage::ScmRights(beside)];
    let beside = if beside.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], beside, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Whether the other end was closed, once that has happened.
fn is_ended(socket: &OwnedFd) -> bool {
    matches!(recv(socket.as_raw_fd(), &mut [0; 1], MsgFlags::empty()), Ok(0) | Err(Errno::ECONNRESET))
}

/// A packet as connections on this machine have them.
fn packet(message: &[u8]) -> Vec<u8> {
    [&b"pt whole"[..], &(message.len() as u64).to_ne_bytes(), message].concat()
}

fn refused<T>(result: Result<T, Error>) -> String {
    match result.map_err(|error| error.kind().clone()) {
        Err(ErrorKind::PeerRefused { reason, .. }) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a stranger was let in"),
    }
}

fn peer_with_another_greeting_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.path().join("ours/socket");
    let listener = Listener::unix(&path).unwrap().handshake_timeout(Duration::MAX).max_handshakes(1);
    let (protocol, version) = (
        "the peer speaks another protocol; is it a program with this crate?",
        "the peer speaks another version of the protocol; use the same version of this crate on both sides",
    );
    let long = [b'x'; 5000];
    for (said, reason) in [
        (&b"hello"[..], protocol),
        (b"process-tas", protocol),
        (b"process-task 2 local", version),
        (b"process-task 1", version),
        (b"process-task 1 local ", version),
        (&long, protocol),
    ] {
        let stranger = raw(&path);
        // With something that was not asked for.
        say(&stranger, said, &[0, 1, 2]).unwrap();
        assert_eq!(refused(listener.accept::<u32, u32>()), reason);
        assert!(is_ended(&stranger));
    }
    // Sockets that do not keep messages apart are others.
    assert!(std::os::unix::net::UnixStream::connect(&path).is_err());
    connect_unix::<u32, u32>(&path).unwrap().send(7).unwrap();
    assert_eq!(listener.accept::<u32, u32>().unwrap().recv(), Ok(7));
}

fn peer_that_only_connects_is_not_accepted() {
    let scratch = Scratch::new();
    let path = scratch.path().join("ours/socket");
    let listener = Listener::unix(&path).unwrap();
    drop(raw(&path));
    assert_eq!(*listener.try_accept::<u32, u32>().unwrap_err().kind(), ErrorKind::Empty);
    // As a process does that begins to listen at the same path.
    assert!(Listener::unix(&path).is_err());
    assert_eq!(*listener.try_accept::<u32, u32>().unwrap_err().kind(), ErrorKind::Empty);
}

fn silent_process_does_not_block_accept() {
    let scratch = Scratch::new();
    let path = scratch.path().join("ours/socket");
    let limit = Duration::from_millis(200);
    let listener = Listener::unix(&path).unwrap().handshake_timeout(limit).max_handshakes(2);
    let begun = Instant::now();
    let silent = [raw(&path), raw(&path)];
    connect_unix::<u32, u32>(&path).unwrap().send(7).unwrap();
    // For a moment there are three, and the first has waited longest.
    let crowded_out = "the peer said nothing until others took its place; `max_handshakes` of the listener allows more";
    assert_eq!(refused(listener.accept::<u32, u32>()), crowded_out);
    assert_eq!(listener.accept::<u32, u32>().unwrap().recv(), Ok(7));
    assert_eq!(
        refused(listener.accept::<u32, u32>()),
        "the peer did not authenticate in time; `handshake_timeout` and `connect_tcp_timeout` allow more"
    );
    assert!(begun.elapsed() >= limit && silent.iter().all(is_ended));
}

/// Listens, as a copy of its process does, too; a peer that came to the copy says something while nothing listens there.
#[process_task]
fn listen_with_a_copy(path: String) {
    let is_empty = |accepted: Result<Connection<u32, u32>, Error>| {
        assert_eq!(*accepted.unwrap_err().kind(), ErrorKind::Empty);
    };
    let listener = Listener::unix(&path).unwrap();
    let before = raw(path.as_ref());
    is_empty(listener.try_accept());
    let ((mut turn, mut its_turn), (mut over, mut is_over)) = (pipe().unwrap(), pipe().unwrap());
    thread::scope(|scope| {
        let listener = &listener;
        scope.spawn(move || {
            turn.read_exact(&mut [0]).unwrap();
            listener.accept_timeout::<u32, u32>(Duration::from_millis(50)).unwrap_err();
            is_over.write_all(&[0]).unwrap();
        });
        fork_copy::in_a_copy(|| {
            let stranger = raw(path.as_ref());
            is_empty(listener.try_accept());
            say(&stranger, GREETING, &[]).unwrap();
            its_turn.write_all(&[0]).unwrap();
            over.read_exact(&mut [0]).unwrap();
            // It is the copy's own all the while, and the one before is none of it.
            say(&stranger, &packet(&7_u32.to_ne_bytes()), &[]).unwrap();
            assert_eq!(listener.accept::<u32, u32>().unwrap().recv(), Ok(7));
            say(&before, GREETING, &[]).unwrap();
            is_empty(listener.try_accept());
        });
    });
    say(&before, &packet(&8_u32.to_ne_bytes()), &[]).unwrap();
    assert_eq!(listener.accept::<u32, u32>().unwrap().recv(), Ok(8));
}

fn slow_peer_of_forked_listener_does_not_block_accept() {
    let scratch = Scratch::new();
    listen_with_a_copy.spawn(scratch.file("ours/socket")).join().unwrap();
}

/// Runs `body` on a thread that acts for another user, which only root's can.
fn as_another_user<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    let acting = || {
        let same = -1_i32;
        // SAFETY: takes three numbers. glibc's own function would change the other threads, too.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, same, 12_345, same) };
        assert_eq!(changed, 0);
        body()
    };
    thread::scope(|scope| scope.spawn(acting).join().unwrap())
}

fn process_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return; // No other user can be two users; the directory's rules are tested for all.
    }
    let scratch = Scratch::new();
    let folder = scratch.path().join("ours");
    let path = folder.join("socket");
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let listener = Listener::unix(&path).unwrap();
    // The directory is opened to others later.
    open(&folder, 0o777);
    open(&path, 0o777);
    let stranger = as_another_user(|| {
        let stranger = raw(&path);
        let _ = say(&stranger, GREETING, &[]);
        stranger
    });
    assert_eq!(
        refused(listener.accept::<u32, u32>()),
        "the peer runs as user 12345, this process as user 0; a path connects processes of one user"
    );
    assert!(is_ended(&stranger));
    drop(listener);
    // Another process listens where we used to.
    fs::create_dir_all(&folder).unwrap();
    open(&folder, 0o777);
    let other = as_another_user(|| {
        let socket = seqpacket();
        bind(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&socket, Backlog::new(1).unwrap()).unwrap();
        socket
    });
    open(&folder, 0o700);
    let error = refused(connect_unix::<u32, u32>(&path));
    assert_eq!(error, "the peer runs as user 12345, this process as user 0; a path connects processes of one user");
    drop(other);
}

fn met<A, B>(scratch: &Scratch) -> (OwnedFd, Connection<A, B>) {
    let path = scratch.path().join("ours/socket");
    let listener = Listener::unix(&path).unwrap();
    let stranger = raw(&path);
    say(&stranger, GREETING, &[]).unwrap();
    (stranger, listener.accept().unwrap())
}

fn descriptors_of_strangers_are_closed() {
    let scratch = Scratch::new();
    // The census in the end finds those that were kept.
    let (stranger, end) = met::<u32, u32>(&scratch);
    say(&stranger, &packet(&7_u32.to_ne_bytes()), &[0, 1, 2, stranger.as_fd().as_raw_fd()]).unwrap();
    say(&stranger, &packet(&8_u32.to_ne_bytes()), &[]).unwrap();
    assert_eq!((end.recv(), end.recv()), (Ok(7), Ok(8)));
    // A region that another user's process claims to share.
    let (stranger, end) = met::<(), Shared<[u64]>>(&scratch);
    // A value that goes by its place, and the number of its handle.
    say(&stranger, &packet(&[0, 0, 0, 0, 0]), &[0]).unwrap();
    match end.recv() {
        Err(RecvError::Failed(error)) => assert!(error.to_string().contains("from a common ancestor"), "{error}"),
        other => panic!("{other:?}"),
    }
}

fn packets_that_are_no_messages_are_told_from_the_end() {
    let scratch = Scratch::new();
    for bytes in [&b"x"[..], b"pt whole", &[0xff; 100], &packet(b"1234")[..19], &[&packet(b"1234")[..], b"5"].concat()]
    {
        let (stranger, end) = met::<u32, u32>(&scratch);
        say(&stranger, bytes, &[1]).unwrap();
        match end.recv() {
            Err(RecvError::Failed(error)) => {
                let ErrorKind::ChannelFailed { errno, .. } = error.kind() else { panic!("{error}") };
                assert_eq!(Errno::from_raw(*errno), Errno::EPROTO);
            }
            other => panic!("{bytes:?}: {other:?}"),
        }
        drop(stranger);
        assert_eq!(end.recv(), Err(RecvError::Disconnected));
    }
}
