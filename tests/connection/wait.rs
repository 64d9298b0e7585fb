//! What waiting for several promises: each end that is ready is named, nothing is taken, none is missed, and time-outs are kept.
//!
//! Runs in: the test process; its tasks send from children. Never: counts on time, but where a time-out is what is promised.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::process_builder as builder;
use crate::support::shared_counter::{Stage, reach, stage, until, until_killed};
use crate::support::signal_storm;
use crate::support::{PATIENCE, eventually};
use nix::sys::resource::{Resource, getrlimit};
use process_task::channel::{
    Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, one_way, pipe, wait_readable,
};
use process_task::{ErrorKind, StartMethod, process_task};

under_every_start_method! {
    everything_that_many_children_send_is_received,
    sockets_are_waited_for_as_connections_are,
    a_process_is_ready_when_it_has_ended,
    only_ready_ends_are_named,
    waiting_for_nothing_lasts_as_long_as_its_time_out,
    a_storm_of_signals_ends_no_wait,
    a_death_ends_a_wait,
    what_the_kernel_refuses_is_an_error,
}

/// Sends ten numbers, in a hurry or not.
#[process_task]
fn send_ten(out: Sender<(u32, u32)>, index: u32, slow: bool) {
    for number in 0..10 {
        if slow {
            thread::sleep(Duration::from_millis(u64::from(index * 7 % 5)));
        }
        out.send((index, number)).expect("the other end is there");
    }
}

fn everything_that_many_children_send_is_received(method: StartMethod) {
    for slow in [false, true] {
        let (mut processes, mut ends) = (Vec::new(), Vec::new());
        for index in 0..4 {
            let (sender, receiver) = one_way().unwrap();
            processes.push(builder(method).spawn(send_ten, (sender, index, slow)).unwrap());
            ends.push(receiver);
        }
        let mut received = Vec::new();
        while !ends.is_empty() {
            let ready = {
                let all: Vec<&dyn AsFd> = ends.iter().map(|end| end as &dyn AsFd).collect();
                wait_readable(&all, Some(PATIENCE)).unwrap()
            };
            assert!(!ready.is_empty() && ready.is_sorted());
            for place in ready.into_iter().rev() {
                match ends[place].try_recv() {
                    Ok(message) => received.push(message),
                    Err(TryRecvError::Disconnected) => drop(ends.remove(place)),
                    Err(other) => panic!("it was said to be ready: {other}"),
                }
            }
        }
        received.sort_unstable();
        assert!(received.into_iter().eq((0..4).flat_map(|index| (0..10).map(move |number| (index, number)))));
        for process in processes {
            process.join().unwrap();
        }
    }
}

#[process_task]
fn write_ten(port: u16, index: u8) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the other end is there");
    (0..10).for_each(|number| stream.write_all(&[index, number]).expect("the other end reads"));
}

fn sockets_are_waited_for_as_connections_are(method: StartMethod) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let processes: Vec<_> = (0..4).map(|index| builder(method).spawn(write_ten, (port, index)).unwrap()).collect();
    let (mut streams, mut received) = (Vec::new(), Vec::new());
    let mut accepted = 0;
    while accepted < 4 || !streams.is_empty() {
        let ready = {
            let mut all: Vec<&dyn AsFd> = vec![&listener];
            all.extend(streams.iter().map(|stream| stream as &dyn AsFd));
            wait_readable(&all, Some(PATIENCE)).unwrap()
        };
        assert!(!ready.is_empty());
        for place in ready.into_iter().rev() {
            if place == 0 {
                streams.push(listener.accept().unwrap().0);
                accepted += 1;
                continue;
            }
            let mut two = [0; 2];
            match streams[place - 1].read_exact(&mut two) {
                Ok(()) => received.push(two),
                Err(_) => drop(streams.remove(place - 1)),
            }
        }
    }
    received.sort_unstable();
    assert!(received.into_iter().eq((0..4).flat_map(|index| (0..10).map(move |number| [index, number]))));
    for process in processes {
        process.join().unwrap();
    }
}

#[process_task]
fn stay(stage: &Stage) {
    reach(stage);
    until(stage, 2);
}

fn a_process_is_ready_when_it_has_ended(method: StartMethod) {
    let (sender, receiver) = one_way::<u32>().unwrap();
    let stage = stage();
    let mut process = builder(method).spawn(stay, &stage).unwrap();
    until(&stage, 1);
    assert_eq!(wait_readable(&[&receiver, &process], Some(Duration::from_millis(20))).unwrap(), [] as [usize; 0]);
    sender.send(1).unwrap();
    assert_eq!(wait_readable(&[&receiver, &process], None).unwrap(), [0]);
    stage.fetch_add(1, SeqCst);
    assert_eq!(wait_readable(&[&process], None).unwrap(), [0]);
    assert_eq!(wait_readable(&[&receiver, &process], None).unwrap(), [0, 1]);
    assert!(process.wait().unwrap().success());
    assert_eq!(wait_readable(&[&process], None).unwrap(), [0], "it stays so");
    process.join().unwrap();
}

fn only_ready_ends_are_named(_: StartMethod) {
    let (mine, theirs) = pipe::<u32, u32>().unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let all: [&dyn AsFd; 3] = [&mine, &theirs, &far];
    let now = Some(Duration::ZERO);
    assert_eq!(wait_readable(&all, now).unwrap(), [] as [usize; 0]);
    theirs.send(1).unwrap();
    assert_eq!(wait_readable(&all, None).unwrap(), [0]);
    near.write_all(b"x").unwrap();
    assert_eq!(wait_readable(&all, None).unwrap(), [0, 2]);
    assert_eq!(wait_readable(&all, Some(Duration::MAX)).unwrap(), [0, 2], "nothing was taken");
    mine.send(2).unwrap();
    assert_eq!(wait_readable(&all, now).unwrap(), [0, 1, 2]);
    assert_eq!((mine.recv(), theirs.recv()), (Ok(1), Ok(2)));
    assert_eq!(wait_readable(&all, now).unwrap(), [2]);
    // The same one twice is two.
    assert_eq!(wait_readable(&[&far, &far], now).unwrap(), [0, 1]);
    // The end is there for the receiver that is left.
    drop(theirs);
    assert_eq!(wait_readable(&[&mine], None).unwrap(), [0]);
}

fn waiting_for_nothing_lasts_as_long_as_its_time_out(_: StartMethod) {
    let start = Instant::now();
    assert_eq!(wait_readable(&[], Some(Duration::from_millis(50))).unwrap(), [] as [usize; 0]);
    assert!(start.elapsed() >= Duration::from_millis(50));
    let (_sender, receiver) = one_way::<u32>().unwrap();
    assert_eq!(wait_readable(&[&receiver], Some(Duration::from_millis(50))).unwrap(), [] as [usize; 0]);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(wait_readable(&[&receiver], Some(Duration::ZERO)).unwrap(), [] as [usize; 0]);
    let for_ever = wait_readable(&[], None).unwrap_err();
    assert!(matches!(for_ever.kind(), ErrorKind::InvalidInput { .. }), "{for_ever}");
}

/// Waits under fire; how many signals there were, and what came.
#[process_task]
fn wait_under_fire(one: Receiver<u32>, other: Receiver<Vec<u8>>, ready: Sender<()>) -> (u32, u32, usize) {
    signal_storm::storm();
    let start = Instant::now();
    assert_eq!(wait_readable(&[&one, &other], Some(Duration::from_millis(50))).expect("a wait"), [] as [usize; 0]);
    assert_eq!(one.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= Duration::from_millis(100), "a signal has ended a wait");
    ready.send(()).expect("a process waits");
    let (mut numbers, mut bytes) = (0, 0);
    let mut open = [true, true];
    while open != [false, false] {
        for place in wait_readable(&[&one, &other], None).expect("a wait") {
            let over = match place {
                0 => one.recv().map(|number| numbers += number).is_err(),
                _ => other.recv().map(|message| bytes += message.len()).is_err(),
            };
            open[place] &= !over;
        }
        if !open[0] {
            // One that has ended is always ready.
            bytes += other.iter().map(|message| message.expect("a message").len()).sum::<usize>();
            open[1] = false;
        }
    }
    (signal_storm::HANDLED.load(SeqCst), numbers, bytes)
}

fn a_storm_of_signals_ends_no_wait(method: StartMethod) {
    let (numbers, one) = one_way().unwrap();
    let (bytes, other) = one_way().unwrap();
    let (mine, ready) = one_way().unwrap();
    let process = builder(method).spawn(wait_under_fire, (one, other, mine)).unwrap();
    ready.recv().unwrap();
    for round in 0..500 {
        numbers.send(1).unwrap();
        bytes.send(vec![0; if round % 10 == 0 { 100_000 } else { 100 }]).unwrap();
    }
    drop((numbers, bytes));
    let (signals, count, len) = process.join().unwrap();
    assert_eq!((count, len), (500, 450 * 100 + 50 * 100_000));
    assert!(signals > 100, "there was no storm");
}

#[process_task]
fn hold(_end: Sender<u32>, stage: &Stage) {
    reach(stage);
    until_killed();
}

fn a_death_ends_a_wait(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let stage = stage();
    let process = builder(method).spawn(hold, (sender, &stage)).unwrap();
    until(&stage, 1);
    assert_eq!(wait_readable(&[&receiver, &process], Some(Duration::from_millis(10))).unwrap(), [] as [usize; 0]);
    thread::scope(|scope| {
        let connection = scope.spawn(|| wait_readable(&[&receiver], None).unwrap());
        let ended = scope.spawn(|| wait_readable(&[&process], None).unwrap());
        process.kill().unwrap();
        assert_eq!((connection.join().unwrap(), ended.join().unwrap()), (vec![0], vec![0]));
    });
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
    assert!(process.join().is_err());
}

fn what_the_kernel_refuses_is_an_error(_: StartMethod) {
    let (_sender, receiver) = one_way::<u32>().unwrap();
    let (most, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let too_many = vec![&receiver as &dyn AsFd; usize::try_from(most).unwrap().min(2_000_000) + 1];
    let refused = wait_readable(&too_many, Some(Duration::ZERO));
    if most < 2_000_000 {
        let error = refused.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ChannelFailed { .. }), "{error}");
    }
    eventually("the connection is as before", PATIENCE, || receiver.try_recv() == Err(TryRecvError::Empty));
}
