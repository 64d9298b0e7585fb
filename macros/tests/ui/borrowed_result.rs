//! Tasks whose results borrow from their arguments.
use process_task::process_task;

use std::borrow::Cow;

#[process_task]
fn trim(text: &str) -> &str {
    text.trim()
}

#[process_task]
fn trim_cow<'a>(text: &'a str) -> Result<Cow<'a, str>, Option<&'a u8>> {
    Ok(text.trim().into())
}

#[process_task]
fn elided(text: &str) -> Cow<'_, str> {
    text.into()
}

fn main() {
    trim("");
    let _ = trim_cow("");
    elided("");
}
