//! A block for many types, methods for many types, and bounds.
use process_task::process_object;

struct Stack<T>(Vec<T>);

#[process_object]
impl<T> Stack<T>
where
    T: Send,
{
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

struct Store;

#[process_object]
impl Store {
    pub fn get<T: Copy>(&self, key: T) -> T {
        key
    }

    pub fn sized<const N: usize>(&self) -> usize {
        N
    }

    pub fn bounded<'a: 'a>(&self, text: &'a str) -> usize {
        text.len()
    }

    pub fn clause(&self) -> u8
    where
        Self: Sized,
    {
        0
    }
}

fn main() {
    Stack(vec![1]).len();
    Store.get(1) + Store.sized::<1>() + Store.bounded("") + usize::from(Store.clause());
}
