//! Where and when the figures were taken.
//!
//! Runs in: the parent. Never: fails; what the machine does not tell is left out.

use std::fs;
use std::thread::available_parallelism;

use jiff::Timestamp;

use crate::python;

/// Date, kernel, cores, processor and interpreter, in one line.
pub(crate) fn describe() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let facts = [
        Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        format!("Linux {}", kernel.trim()),
        format!("{} cores", cores()),
        processor().unwrap_or_default(),
        python::version().unwrap_or_else(|| "no Python".to_owned()),
    ];
    facts.into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(", ")
}

pub(crate) fn cores() -> usize {
    available_parallelism().map_or(0, usize::from)
}

/// The load averages over 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
