//! Values that cannot live in shared memory.
use process_task::Shared;

struct Plain(u8);

fn main() {
    let _ = Shared::new(Plain(1));
    let _ = Shared::new("text");
    let _ = Shared::new((1_u8, [String::new()]));
    let _ = Shared::<[Option<u8>]>::from_iter([None]);
}
