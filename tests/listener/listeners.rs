//! What listeners promise to those that are let in: connections like a pipe's, over both families.
//!
//! Runs in: the test process; some of those that connect, or listen, are its children. Never: uses a
//! port that was chosen by hand.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::listener_pair::{FAMILIES, Family, Meeting, Place, pair};
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually, promise};
use nix::errno::Errno;
use process_task::channel::{
    Connection, Key, Listener, Receiver, RecvError, Sender, TryRecvError, connect_tcp, connect_tcp_timeout,
    connect_unix, wait_readable,
};
use process_task::{Error, ErrorKind, Shared, process_task};

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod promises { $(#[test] fn $name() { super::promise(super::$name) })+ }
    };
}

promises! {
    hello_arrives_over_each_family,
    what_was_sent_before_it_was_accepted_is_there,
    processes_without_a_common_ancestor_meet,
    dropped_listener_refuses_connections,
    accepting_waits_only_so_long,
    several_threads_accept_at_once,
    several_connections_are_waited_for_at_once,
    a_name_is_in_a_directory_of_the_users_own_or_refused,
    a_name_in_no_directory_is_refused,
    what_a_killed_listener_left_is_replaced_and_nothing_else,
    of_many_that_begin_at_once_one_listens,
    a_dropped_listener_removes_its_own_name_only,
    a_directory_is_known_wherever_the_process_goes,
    what_relatives_share_does_not_go_to_strangers,
    local_connection_travels_and_remote_one_does_not,
    a_listener_and_a_connection_say_where_they_are,
    taken_ports_and_addresses_that_lead_nowhere_are_errors,
    unanswered_address_leaves_time_for_the_next,
    a_silent_machine_is_asked_whether_it_is_there,
}

fn kind_of<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.kind().clone(),
    }
}

/// What an error of this kind says.
fn reason(kind: &ErrorKind) -> &str {
    match kind {
        ErrorKind::InvalidInput { reason, .. } | ErrorKind::PeerRefused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn errno(kind: &ErrorKind) -> Errno {
    match kind {
        ErrorKind::ChannelFailed { errno, .. } => Errno::from_raw(*errno),
        other => panic!("{other:?}"),
    }
}

fn hello_arrives_over_each_family() {
    for family in FAMILIES {
        let (client, server) = pair::<String, Vec<u32>>(family);
        client.send("hello".to_owned()).unwrap();
        assert_eq!(server.recv().unwrap(), "hello");
        server.send(vec![1, 2, 3]).unwrap();
        assert_eq!(client.recv().unwrap(), [1, 2, 3]);
        drop(client);
        assert_eq!(server.recv(), Err(RecvError::Disconnected), "{family:?}");
        assert_eq!(server.recv(), Err(RecvError::Disconnected), "{family:?}: and so it stays");
        let error = server.send(vec![4]).unwrap_err();
        assert!(error.is_disconnected(), "{family:?}");
        assert_eq!(error.into_inner(), [4], "{family:?}");
    }
}

fn what_was_sent_before_it_was_accepted_is_there() {
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        let say = |place: Place| {
            let client = place.connect::<String, ()>().unwrap();
            client.send("first".to_owned()).unwrap();
            client.send("second".to_owned()).unwrap();
        };
        let server: Receiver<String> = match family {
            // Gone before a look.
            Family::Unix => {
                say(meeting.place.clone());
                meeting.listener.accept().unwrap()
            }
            // Gone before a read: handshakes need both.
            Family::Tcp => thread::scope(|scope| {
                let client = scope.spawn(|| say(meeting.place.clone()));
                let server = meeting.listener.accept().unwrap();
                client.join().unwrap();
                server
            }),
        };
        let words: Vec<_> = server.iter().map(Result::unwrap).collect();
        assert_eq!(words, ["first", "second"], "{family:?}");
        assert_eq!(server.recv(), Err(RecvError::Disconnected), "{family:?}");
    }
}

#[process_task]
fn call_from_elsewhere(path: Option<String>, address: String, secret: Vec<u8>) -> u64 {
    let server: Connection<u64, u64> = match path {
        Some(path) => connect_unix(path).unwrap(),
        None => connect_tcp(address, &Key::new(secret).unwrap()).unwrap(),
    };
    server.send(20).unwrap();
    server.recv().unwrap() + 1
}

fn parts(place: &Place) -> (Option<String>, String, Vec<u8>) {
    match place {
        Place::Path(path) => (Some(path.to_str().unwrap().to_owned()), String::new(), Vec::new()),
        Place::Port(address, key) => (None, address.to_string(), key.secret().to_vec()),
    }
}

fn processes_without_a_common_ancestor_meet() {
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        let (path, address, secret) = parts(&meeting.place);
        let other = call_from_elsewhere.spawn(path, address, secret);
        let guest = meeting.listener.accept::<u64, u64>().unwrap();
        guest.send(guest.recv().unwrap() * 2).unwrap();
        assert_eq!(other.join().unwrap(), 41, "{family:?}");
        assert_eq!(guest.recv(), Err(RecvError::Disconnected), "{family:?}");
    }
}

fn dropped_listener_refuses_connections() {
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        let place = meeting.place.clone();
        let (client, server) = meeting.pair::<u32, u32>();
        drop(meeting);
        let gone = errno(&kind_of(place.connect::<u32, u32>()));
        let expected = if family == Family::Unix { Errno::ENOENT } else { Errno::ECONNREFUSED };
        assert_eq!(gone, expected, "{family:?}");
        // Those that were let in stay.
        client.send(7).unwrap();
        assert_eq!(server.recv(), Ok(7), "{family:?}");
    }
}

fn accepting_waits_only_so_long() {
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        assert_eq!(kind_of(meeting.listener.try_accept::<u32, u32>()), ErrorKind::Empty, "{family:?}");
        let (limit, begun) = (Duration::from_millis(50), Instant::now());
        assert!(meeting.listener.accept_timeout::<u32, u32>(limit).is_err(), "{family:?}");
        assert!(begun.elapsed() >= limit, "{family:?}");
        assert_eq!(wait_readable(&[&meeting.listener], Some(Duration::ZERO)).unwrap(), [0; 0], "{family:?}");
        // A listener that is looked at together with others, and never waits itself.
        let place = meeting.place.clone();
        let client = thread::spawn(move || place.connect::<u32, u32>().unwrap());
        let server = loop {
            assert_eq!(wait_readable(&[&meeting.listener], Some(PATIENCE)).unwrap(), [0], "{family:?}");
            match meeting.listener.try_accept::<u32, u32>() {
                Ok(server) => break server,
                Err(error) => assert_eq!(*error.kind(), ErrorKind::Empty, "{family:?}"),
            }
        };
        client.join().unwrap().send(7).unwrap();
        assert_eq!(server.recv(), Ok(7));
    }
}

fn several_threads_accept_at_once() {
    const EACH: u32 = 5;
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        let mut numbers: Vec<u32> = thread::scope(|scope| {
            let take = || (0..EACH).map(|_| meeting.listener.accept::<u32, u32>().unwrap().recv().unwrap()).collect();
            let servers: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
            let say = |number| meeting.place.connect::<u32, u32>().unwrap().send(number).unwrap();
            let clients: Vec<_> = (0..3 * EACH).map(|number| scope.spawn(move || say(number))).collect();
            for client in clients {
                client.join().unwrap();
            }
            servers.into_iter().flat_map(|server| -> Vec<u32> { server.join().unwrap() }).collect()
        });
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..3 * EACH), "{family:?}");
    }
}

fn several_connections_are_waited_for_at_once() {
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        let mut open: Vec<(u32, Connection<(), u32>, u32)> = Vec::new();
        thread::scope(|scope| {
            for number in 0..4 {
                let (client, server) = meeting.pair::<u32, ()>();
                open.push((number, server, 0));
                scope.spawn(move || {
                    for message in 0..10 {
                        client.send(number * 100 + message).unwrap();
                        if number % 2 == 0 {
                            thread::sleep(Duration::from_millis(3));
                        }
                    }
                });
            }
            while !open.is_empty() {
                let ends: Vec<&dyn AsFd> = open.iter().map(|(_, end, _)| end as &dyn AsFd).collect();
                for at in wait_readable(&ends, Some(PATIENCE)).unwrap().into_iter().rev() {
                    let (number, end, count) = &mut open[at];
                    match end.try_recv() {
                        Ok(message) => {
                            assert_eq!(message, *number * 100 + *count, "{family:?}");
                            *count += 1;
                        }
                        Err(TryRecvError::Empty) => assert_eq!(family, Family::Tcp, "only part of it came"),
                        Err(end) => {
                            assert_eq!((end, *count), (TryRecvError::Disconnected, 10), "{family:?}");
                            open.remove(at);
                        }
                    }
                }
            }
        });
    }
}

fn a_name_is_in_a_directory_of_the_users_own_or_refused() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("folder");
    let path = folder.join("socket");
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    let both = |path: &Path| [kind_of(Listener::unix(path)), kind_of(connect_unix::<u32, u32>(path))];

    // Made, for this user alone, and removed.
    let listener = Listener::unix(&path).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    assert_eq!(listener.path(), Some(&*path));
    drop(listener);
    assert!(!folder.exists());
    // Not where there is nothing to put it into, and not where there is no name.
    assert_eq!(errno(&kind_of(Listener::unix(scratch.path().join("a/b/socket")))), Errno::ENOENT);
    assert!(reason(&kind_of(Listener::unix("/"))).contains("does not end with a name"));

    fs::create_dir(&folder).unwrap();
    for open in [0o755, 0o710, 0o701, 0o770, 0o777, 0o704] {
        mode(open);
        for kind in both(&path) {
            let said = format!("can be used by others than its owner (mode {open:o}); it needs mode 700");
            assert!(reason(&kind).contains(&said), "{kind:?}");
        }
        assert!(!path.exists());
    }
    mode(0o700);
    let link = scratch.path().join("link");
    symlink(&folder, &link).unwrap();
    for kind in both(&link.join("socket")) {
        assert!(reason(&kind).contains("and no link"), "{kind:?}");
    }
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(&folder, Some(12_345.into()), None).unwrap();
        for kind in both(&path) {
            assert!(reason(&kind).contains("belongs to user 12345 and not to user 0"), "{kind:?}");
        }
        nix::unistd::chown(&folder, Some(0.into()), None).unwrap();
    }
    // A directory that was made for a name that cannot be is removed again.
    fs::remove_dir(&folder).unwrap();
    assert_eq!(errno(&kind_of(Listener::unix(folder.join("x".repeat(300))))), Errno::ENAMETOOLONG);
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    mode(0o700);
    // Longer than what a socket's address has room for.
    let long = folder.join("x".repeat(90));
    assert!(long.as_os_str().len() > 108);
    let listener = Listener::unix(&long).unwrap();
    connect_unix::<u32, u32>(&long).unwrap().send(7).unwrap();
    assert_eq!(listener.accept::<(), u32>().unwrap().recv(), Ok(7));
    drop(listener);
    assert!(folder.exists() && !long.exists(), "a directory that was there stays");
}

fn a_name_in_no_directory_is_refused() {
    for kind in [kind_of(Listener::unix("\0hello")), kind_of(connect_unix::<u32, u32>("\0hello"))] {
        assert!(reason(&kind).contains("names that are in no directory have no owner"), "{kind:?}");
    }
}

#[process_task]
fn listen_for_ever(path: String, ready: Sender<()>) {
    let _listener = Listener::unix(path).unwrap();
    ready.send(()).unwrap();
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn what_a_killed_listener_left_is_replaced_and_nothing_else() {
    let scratch = Scratch::new();
    let path = scratch.path().join("ours").join("socket");
    let (ready, is_ready) = process_task::channel::one_way().unwrap();
    let victim = listen_for_ever.spawn(path.to_str().unwrap().to_owned(), ready);
    is_ready.recv().unwrap();
    // It lives, also while it does not accept.
    assert!(reason(&kind_of(Listener::unix(&path))).contains("a process listens there already"));
    assert!(path.exists());
    victim.kill().unwrap();
    assert!(victim.join().is_err());
    assert!(path.exists(), "this is what a killed process leaves");
    assert_eq!(errno(&kind_of(connect_unix::<u32, u32>(&path))), Errno::ECONNREFUSED);
    let listener = Listener::unix(&path).unwrap();
    connect_unix::<u32, u32>(&path).unwrap().send(7).unwrap();
    assert_eq!(listener.accept::<(), u32>().unwrap().recv(), Ok(7));
    drop(listener);
    // What is no socket belongs to another program.
    fs::write(&path, "precious").unwrap();
    assert!(reason(&kind_of(Listener::unix(&path))).contains("is the name of something else"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

fn of_many_that_begin_at_once_one_listens() {
    let scratch = Scratch::new();
    let path = scratch.path().join("ours").join("socket");
    for round in 0..support::rounds(6) {
        // With and without a name that a dead one left, and a directory that others make and remove.
        let (together, before) = (Barrier::new(8), path.parent().unwrap());
        if round % 2 == 0 {
            fs::create_dir(before).unwrap();
            fs::set_permissions(before, fs::Permissions::from_mode(0o700)).unwrap();
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        let listening: Vec<_> = thread::scope(|scope| {
            let begin = || {
                together.wait();
                Listener::unix(&path)
            };
            let all: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (listening, refused): (Vec<_>, Vec<_>) = listening.into_iter().partition(Result::is_ok);
        assert_eq!((listening.len(), refused.len()), (1, 7), "{refused:?}");
        for error in refused {
            assert!(reason(&kind_of(error)).contains("a process listens there already"));
        }
        connect_unix::<usize, u32>(&path).unwrap().send(round).unwrap();
        let listener = listening.into_iter().next().unwrap().unwrap();
        assert_eq!(listener.accept::<(), usize>().unwrap().recv(), Ok(round));
        drop(listener);
        assert!(!path.exists());
        let _ = fs::remove_dir(before);
    }
}

fn a_dropped_listener_removes_its_own_name_only() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("ours");
    let path = folder.join("socket");
    let old = Listener::unix(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let new = Listener::unix(&path).unwrap();
    drop(old);
    connect_unix::<u32, u32>(&path).unwrap().send(7).unwrap();
    assert_eq!(new.accept::<(), u32>().unwrap().recv(), Ok(7));
    drop(new);
    assert!(!path.exists());
}

/// Listens at a path that has no start, and goes elsewhere. Which of two directories are there in the end.
#[process_task]
fn listen_and_go(scratch: String) -> (bool, bool) {
    std::env::set_current_dir(&scratch).unwrap();
    let listener = Listener::unix("ours/socket").unwrap();
    fs::create_dir_all("other/ours").unwrap();
    std::env::set_current_dir("other").unwrap();
    drop(listener);
    (Path::new("../ours").exists(), Path::new("ours").exists())
}

fn a_directory_is_known_wherever_the_process_goes() {
    let scratch = Scratch::new();
    let there = listen_and_go.spawn(scratch.path().to_str().unwrap().to_owned()).join().unwrap();
    assert_eq!(there, (false, true), "its own is gone, and another of the same name is not");
}

fn what_relatives_share_does_not_go_to_strangers() {
    for family in FAMILIES {
        let (client, _server) = pair::<Shared<[u64]>, ()>(family);
        let error = client.send(Shared::from_slice(&[1u64, 2]).unwrap()).unwrap_err();
        let failure = error.failure().unwrap().to_string();
        let said = if family == Family::Unix { "from a common ancestor" } else { "cannot go to another machine" };
        assert!(failure.contains(said), "{family:?}: {failure}");
        assert_eq!(error.into_inner()[..], [1, 2], "{family:?}: it comes back");
        let (client, server) = pair::<Vec<Sender<u32>>, ()>(family);
        let (sender, receiver) = process_task::channel::one_way::<u32>().unwrap();
        assert!(client.send(vec![sender]).unwrap_err().to_string().starts_with("cannot encode"));
        assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
        // The connection is as good as before.
        client.send(vec![]).unwrap();
        assert!(server.recv().unwrap().is_empty());
    }
}

#[process_task]
fn answer(guest: Connection<u64, u64>) -> u64 {
    let number = guest.recv().unwrap();
    guest.send(number * 2).unwrap();
    number
}

fn local_connection_travels_and_remote_one_does_not() {
    let (client, server) = pair::<u64, u64>(Family::Unix);
    let other = answer.spawn(server);
    client.send(21).unwrap();
    assert_eq!((client.recv(), other.join().unwrap()), (Ok(42), 21));
    let (_client, server) = pair::<u64, u64>(Family::Tcp);
    let error = answer.spawn(server).join().unwrap_err();
    assert!(error.to_string().contains("a connection to another machine cannot travel"), "{error}");
}

fn a_listener_and_a_connection_say_where_they_are() {
    let meeting = Meeting::new(Family::Tcp);
    let address = meeting.listener.local_addr().unwrap();
    assert_eq!((meeting.listener.path(), meeting.listener.to_string()), (None, address.to_string()));
    let (client, _server) = meeting.pair::<u32, u32>();
    assert!(format!("{client:?}").contains(&address.port().to_string()), "{client:?}");
    let Place::Port(_, key) = &meeting.place else { unreachable!() };
    let secret: Vec<String> = key.secret().iter().map(u8::to_string).collect();
    assert!(!format!("{:?} {client:?}", meeting.listener).contains(&secret.join(", ")));
    let meeting = Meeting::new(Family::Unix);
    let Place::Path(path) = &meeting.place else { unreachable!() };
    assert_eq!((meeting.listener.local_addr(), meeting.listener.to_string()), (None, path.display().to_string()));
}

fn taken_ports_and_addresses_that_lead_nowhere_are_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let key = Key::random().unwrap();
    assert_eq!(errno(&kind_of(Listener::tcp(address, key.clone()))), Errno::EADDRINUSE);
    drop(taken);
    let error = connect_tcp::<u32, u32>(address, &key).unwrap_err();
    assert_eq!(errno(error.kind()), Errno::ECONNREFUSED);
    assert!(error.to_string().contains(&format!("connect to {address}: Connection refused")), "{error}");
    let nowhere: &[std::net::SocketAddr] = &[];
    assert!(reason(&kind_of(connect_tcp::<u32, u32>(nowhere, &key))).contains("leads nowhere"));
    assert!(reason(&kind_of(Listener::tcp(nowhere, key.clone()))).contains("leads nowhere"));
    for no_address in ["localhost", "127.0.0.1:http", "127.0.0.1:65536", ""] {
        assert!(reason(&kind_of(connect_tcp::<u32, u32>(no_address, &key))).contains("leads nowhere"));
        assert!(reason(&kind_of(Listener::tcp(no_address, key.clone()))).contains("leads nowhere"));
    }
}

fn unanswered_address_leaves_time_for_the_next() {
    // The kernel takes two of those that connect, and then says nothing to any.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    nix::sys::socket::listen(&silent, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let before: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&silent.0, Duration::from_millis(500)).ok()).collect();
    let meeting = Meeting::new(Family::Tcp);
    let Place::Port(address, key) = &meeting.place else { unreachable!() };
    thread::scope(|scope| {
        let client =
            scope.spawn(|| connect_tcp_timeout::<u32, u32>(&[silent.0, *address][..], key, Duration::from_secs(4)));
        let server = meeting.listener.accept_timeout::<u32, u32>(PATIENCE);
        client.join().unwrap().unwrap().send(7).unwrap();
        assert_eq!(server.unwrap().unwrap().recv(), Ok(7));
    });
    drop(before);
}

fn a_silent_machine_is_asked_whether_it_is_there() {
    let meeting = Meeting::new(Family::Tcp);
    let port = format!(":{:04X}", meeting.listener.local_addr().unwrap().port());
    let (_client, _server) = meeting.pair::<u32, u32>();
    // Both ends of it; the field behind the queues tells which timer runs: 02 is the one that asks.
    let timers = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = rows.filter(|row| row[3] == "01" && (row[1].ends_with(&port) || row[2].ends_with(&port)));
        ours.map(|row| row[5][..2].to_owned()).collect::<Vec<_>>()
    };
    eventually("the kernel asks for both ends", PATIENCE, || timers() == ["02", "02"]);
}
