//! Types without serde's traits, as parameter, behind a reference, inside another type, and as result.
use process_task::process_task;

struct Local;
struct Inner;
struct Target;
struct Answer;

#[derive(serde::Serialize)]
struct HalfWay;

#[process_task]
fn send(local: Local, many: Vec<Inner>, target: &Target, half: HalfWay) -> Answer {
    let _ = (local, many, target, half);
    Answer
}

#[process_task]
fn dynamic(shown: &dyn std::fmt::Debug, boxed: Box<dyn Fn() + Send>, targets: &[Target]) {
    let _ = (shown, boxed, targets);
}

fn main() {
    send(Local, vec![Inner], &Target, HalfWay);
}
