//! Wrong arguments of a proxy's methods, results that are used as if nothing could fail, and what stays with the object.
use process_task::{Manager, ManagerHandle, process_object};

struct Counter(i64);

#[process_object]
impl Counter {
    pub fn new(start: i64) -> Self {
        Self(start)
    }

    pub fn add(&mut self, n: i64) -> i64 {
        self.0 += n;
        self.0
    }

    #[local]
    pub fn into_inner(self) -> i64 {
        self.0
    }

    fn helper(&self) {}
}

fn use_it(manager: &ManagerHandle, owner: &Manager, counter: CounterProxy) -> process_task::Result<()> {
    CounterProxy::new(3)?;
    CounterProxy::new(owner, "3")?;
    counter.add("three")?;
    counter.helper();
    counter.into_inner();
    let _: i64 = counter.add(3);
    let _ = manager;
    Ok(())
}

fn main() {
    Counter(1).helper();
}
