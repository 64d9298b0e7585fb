//! Side-by-side runs of process-task and its peers.
fn main() {}
