//! How soon a caller hears that the worker which ran its call was killed: from `kill -9` to the error.
//!
//! Runs in: the parent, which kills; [`wait_for_death`] in a worker. Never: kills a worker that has not begun.
//!
//! The call connects to a socket of the parent and says its process id, so that the parent knows which process to kill, and that
//! the call runs.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{ErrorKind, Pool, process_task};

use crate::measure::{Figure, check, quantile};
use crate::python::Library;
use crate::race::{Measured, Peer};
use crate::table::{Row, Unit};
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "worker killed, until the error, median", unit: Unit::Seconds, run: median },
    Row { name: "worker killed, until the error, 99 of 100", unit: Unit::Seconds, run: p99 },
];

const KILLS: u32 = 300;
/// The peers need longer for a new worker.
const FEW: u32 = 50;

/// Ends when the parent lets go of the other end, in case that nothing kills it. The address is an abstract one.
#[process_task]
fn wait_for_death(address: String) -> u64 {
    let connect = || -> std::io::Result<u64> {
        let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&address)?)?;
        stream.write_all(&std::process::id().to_ne_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(|_| 0)
    };
    // The parent waits for a connection, not for this result.
    connect().unwrap_or(1)
}

fn median() -> Outcome<Measured> {
    let peers = vec![
        Peer::bound("bound: 1 ms", 1e-3),
        Peer::new("procspawn", Ok(Figure::of(&procspawn_kills()?))),
        python::peer("Python Pool.apply_async", Library::Pool, "death")?,
        python::peer("Python ProcessPoolExecutor.submit", Library::Executor, "death")?,
    ];
    Ok(Measured { ours: Figure::of(&kills()?), peers })
}

fn p99() -> Outcome<Measured> {
    let p99 = |times: &[f64]| Figure::exactly(quantile(times, 0.99));
    let peers = vec![
        Peer::bound("bound: 10 ms", 10e-3),
        Peer::new("procspawn", Ok(p99(&procspawn_kills()?))),
        python::peer_p99("Python ProcessPoolExecutor.submit", Library::Executor, "death")?,
    ];
    Ok(Measured { ours: p99(&kills()?), peers })
}

fn kills() -> Outcome<Vec<f64>> {
    let (pool, door) = (Pool::builder().workers(WORKERS).build()?, Door::open()?);
    let killed = |error: process_task::Error| matches!(error.kind(), ErrorKind::Killed { signal: 9, .. });
    let one = |_| {
        let call = pool.submit(wait_for_death, door.address.clone());
        door.kill_visitor(|| call.join().is_err_and(killed))
    };
    (0..KILLS).map(one).collect()
}

fn procspawn_kills() -> Outcome<Vec<f64>> {
    let (pool, door) = (procspawn::Pool::new(WORKERS)?, Door::open()?);
    let one = |_| {
        let call = pool.spawn(door.address.clone(), *wait_for_death);
        door.kill_visitor(|| call.join().is_err())
    };
    (0..FEW).map(one).collect()
}

/// Where calls say that they run.
#[derive(Debug)]
struct Door {
    listener: UnixListener,
    address: String,
}

impl Door {
    fn open() -> Outcome<Self> {
        let address = format!("process-task-bench-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&address)?)?;
        Ok(Self { listener, address })
    }

    /// Kills the process that comes next; seconds until `failed` has returned, which must be true.
    fn kill_visitor(&self, failed: impl FnOnce() -> bool) -> Outcome<f64> {
        let (mut stream, _) = self.listener.accept()?;
        let mut pid = [0; 4];
        stream.read_exact(&mut pid)?;
        // Let it go to sleep, as a worker that computes has long begun.
        std::thread::sleep(Duration::from_micros(200));
        let start = Instant::now();
        kill(Pid::from_raw(i32::from_ne_bytes(pid)), Signal::SIGKILL)?;
        let failed = failed();
        let seconds = start.elapsed().as_secs_f64();
        check(failed, true)?;
        Ok(seconds)
    }
}
