//! What goes by names, that it arrives, and that no bytes make its reader panic.
//!
//! Runs in: the test process. Never: starts a process.
#![expect(clippy::items_after_statements, reason = "a type stands where it is tried")]
#![expect(clippy::option_option, reason = "they have to stay apart")]

mod attributes;
mod unknown;

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::check;
use crate::codec::NoSpill;
use crate::codec::via_serde::{again, put, take};
use crate::codec::{CodecError, Encoded, Reader, Writer};

fn sent<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut none = NoSpill;
    let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
    put(value, &mut writer, again::<T>)?;
    match writer.finish()? {
        Encoded::Small(bytes) => Ok(bytes),
        Encoded::Spilled(_) => unreachable!("there is no spill"),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut reader = Reader::new(bytes);
    let value = take(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// What arrives of a value alone, in what holds it, and again; and whether it went by names.
fn arrives<T: Serialize + DeserializeOwned + Debug + Clone>(value: &T) -> Result<(T, bool), CodecError> {
    let bytes = sent(value)?;
    let arrived: T = read(&bytes)?;
    let text = format!("{arrived:?}");
    let held = (7_u8, vec![Some(value.clone()), None], "after".to_owned());
    let (before, held, after): (u8, Vec<Option<T>>, String) = read(&sent(&held)?)?;
    assert_eq!((before, after.as_str(), held.len()), (7, "after", 2));
    assert_eq!(format!("{held:?}"), format!("[Some({text}), None]"));
    assert_eq!(format!("{:?}", read::<T>(&sent(value)?)?), text, "the second time as the first");
    check(value).unwrap();
    Ok((arrived, bytes[0] == 1))
}

#[track_caller]
fn by_name<T: Serialize + DeserializeOwned + Debug + Clone>(value: &T) {
    let (arrived, named) = arrives(value).unwrap();
    assert_eq!((format!("{arrived:?}"), named), (format!("{value:?}"), true));
}

#[track_caller]
fn by_place<T: Serialize + DeserializeOwned + Debug + Clone>(value: &T) {
    let (arrived, named) = arrives(value).unwrap();
    assert_eq!((format!("{arrived:?}"), named), (format!("{value:?}"), false));
}

/// What the sender is told, the first time and the second.
#[track_caller]
fn refused<T: Serialize + DeserializeOwned + Debug>(value: &T) -> String {
    let error = sent(value).expect_err("it would arrive").to_string();
    assert_eq!(sent(value).unwrap_err().to_string(), error);
    assert!(check(value).unwrap_err().to_string().contains("cannot encode"));
    assert!(error.contains(std::any::type_name::<T>()), "{error}");
    error
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Skips {
    A,
    #[serde(skip)]
    B,
    C,
    D(u8),
    E {
        x: u8,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    first: Option<u8>,
    second: u8,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    third: Vec<u8>,
}
