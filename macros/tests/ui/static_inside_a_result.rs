//! Types that hold a `'static` reference, as result and as parameter: they could be written but never read.
use process_task::process_task;

#[derive(serde::Serialize, serde::Deserialize)]
struct Name(#[serde(borrow)] &'static str);

#[derive(serde::Serialize, serde::Deserialize)]
struct Title<'a>(&'a str);

#[process_task]
fn named(title: Title<'static>) -> Name {
    Name(title.0)
}

fn main() {
    named(Title(""));
}
