//! Options that there are not, or not so.
use process_task::process_task;

#[process_task(timeout = "2 s", retries = 0)]
fn a() {}

#[process_task(timeout = 2, retries = -1)]
fn b() {}

#[process_task(timeout = "0s", retries = "3")]
fn c() {}

#[process_task(timeout = "-1s", retries = 4294967296)]
fn d() {}

#[process_task(timeout = "2", retries = 1, retries = 2, speed = 3)]
fn e() {}

#[process_task(timeout, 3, retries)]
fn f() {}

#[process_task(timeout = "1d", crate = 3)]
fn g() {}

#[process_task(timeout = "9999999999999999999h")]
fn h() {}

fn main() {
    a();
    b();
    c();
    d();
    e();
    f();
    g();
    h();
}
