//! Types of one process in queues and pipes, and the constructor that Python's queue has.
use process_task::channel::{Queue, SimpleQueue, pipe};

struct Local;

fn main() -> process_task::Result<()> {
    let counted = Queue::bounded(1)?;
    counted.send(std::rc::Rc::new(7))?;
    let closures = SimpleQueue::new()?;
    closures.send(|| 7)?;
    let _ends = pipe::<Local, u32>()?;
    let _queue = Queue::<u32>::new(10);
    Ok(())
}
