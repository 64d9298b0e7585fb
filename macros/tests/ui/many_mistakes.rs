//! Many mistakes in one item, reported in one compile; its callers have no errors.
use process_task::process_task;

#[process_task(timeout = "soon")]
const unsafe fn everything<T, const N: usize>(
    it: &'static str,
    list: &mut [T; N],
    #[cfg(all())] more: impl Copy,
) -> &'static str
where
    T: Copy,
{
    let _ = (list, more);
    it
}

fn main() {
    unsafe { everything("", &mut [0], 1) };
}
