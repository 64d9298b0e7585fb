//! What a process of its own promises.
mod support;

use process_task::{Builder, StartMethod, process_task};

under_every_start_method! {
    the_result_of_a_task_is_what_it_returned,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

fn the_result_of_a_task_is_what_it_returned(method: StartMethod) {
    let process = Builder::new().start_method(method).spawn(square, 10).unwrap();
    assert_eq!(process.join().unwrap(), 100);
}
