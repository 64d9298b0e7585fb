//! What can never live in shared memory, whatever is in it.
use process_task::Shareable;

#[derive(Shareable)]
union Either {
    whole: u32,
    real: f32,
}

#[derive(Shareable)]
struct Borrowed<'a> {
    name: &'a u8,
}

#[derive(Shareable)]
enum WithFields {
    Nothing,
    Number(u32),
    Point { x: f64 },
}

#[derive(Shareable)]
enum Unsized {
    One,
    Two,
}

#[derive(Shareable)]
#[repr(u32)]
enum FourBytes {
    One,
}

#[derive(Shareable)]
enum Never {}

#[derive(Shareable)]
#[shareable(crate = process_task, name = "x")]
struct Options(u8);

fn main() {}
