//! What goes through a channel: values of a type that generic code does not know, with handles beside them.
//!
//! Owns: the choice of the format where no macro can make it. Runs in: any process.
//! Never: takes another format for one direction than for the other: both ask `plain_types` in the same order.
//!
//! Generated code chooses a type's format where the type is known (see [`choose`](super::choose)). A channel's code is generic, so
//! it compares its type with those that are commonly sent in bulk, which costs nothing: the compiler knows the answers.

use std::any::{Any, TypeId};
use std::path::PathBuf;

use super::handles::{self, Handles, Received};
use super::{CodecError, Encoded, Plain, Reader, Spill, Travels, Writer, via_serde};

/// Values that can go through a channel: what has serde's two traits, and borrows nothing.
///
/// Every such type has it, and there is no other way to get it.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Point { x: f64, y: f64 }
///
/// fn is_message<T: process_task::channel::Message>() {}
/// is_message::<Point>();
/// is_message::<Vec<u8>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot go through a channel",
    label = "not a type that can be sent to a process and kept there",
    note = "a type of this crate can if it derives serde's two traits: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "what borrows cannot: send what owns, `String` for `&str`",
    note = "an error of another crate (`io::Error`, `anyhow::Error`, `Box<dyn Error>`) travels as text: `error.to_string()`",
    note = "what processes are to share has a counterpart in `process_task`: `Shared<T>` for `Arc<T>`, `Shared<sync::Mutex<T>>` for a `Mutex<T>`, `channel` for `mpsc`, `channel::Descriptor` for files and sockets"
)]
pub trait Message: for<'a> Travels<'a> + 'static {}

#[diagnostic::do_not_recommend]
impl<T: for<'a> Travels<'a> + 'static> Message for T {}

/// Calls `$macro` with the types that are encoded as their memory: numbers, and short arrays of them.
macro_rules! numbers {
    ($macro:ident, $($more:ty,)*) => {
        $macro! {
            u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64,
            [u8; 2], [i8; 2], [u16; 2], [i16; 2], [u32; 2], [i32; 2], [u64; 2], [i64; 2], [u128; 2], [i128; 2],
            [usize; 2], [isize; 2], [f32; 2], [f64; 2],
            [u8; 3], [i8; 3], [u16; 3], [i16; 3], [u32; 3], [i32; 3], [u64; 3], [i64; 3], [u128; 3], [i128; 3],
            [usize; 3], [isize; 3], [f32; 3], [f64; 3],
            [u8; 4], [i8; 4], [u16; 4], [i16; 4], [u32; 4], [i32; 4], [u64; 4], [i64; 4], [u128; 4], [i128; 4],
            [usize; 4], [isize; 4], [f32; 4], [f64; 4],
            [u8; 8], [i8; 8], [u16; 8], [i16; 8], [u32; 8], [i32; 8], [u64; 8], [i64; 8], [u128; 8], [i128; 8],
            [usize; 8], [isize; 8], [f32; 8], [f64; 8],
            [u8; 16], [i8; 16], [u16; 16], [i16; 16], [u32; 16], [i32; 16], [u64; 16], [i64; 16], [u128; 16],
            [i128; 16], [usize; 16], [isize; 16], [f32; 16], [f64; 16],
            $($more,)*
        }
    };
}

/// Calls `$macro` with the types that travel in the plain format.
macro_rules! plain_types {
    ($macro:ident) => {
        numbers! {
            $macro,
            bool, char, (), String, PathBuf,
            Vec<u8>, Vec<i8>, Vec<u16>, Vec<i16>, Vec<u32>, Vec<i32>, Vec<u64>, Vec<i64>, Vec<u128>, Vec<i128>,
            Vec<usize>, Vec<isize>, Vec<f32>, Vec<f64>,
            Box<[u8]>, Box<[i8]>, Box<[u16]>, Box<[i16]>, Box<[u32]>, Box<[i32]>, Box<[u64]>, Box<[i64]>, Box<[u128]>,
            Box<[i128]>, Box<[usize]>, Box<[isize]>, Box<[f32]>, Box<[f64]>,
        }
    };
}

/// Whether values of this type travel in the plain format, which knows no handles.
#[inline]
fn is_plain<T: Message>() -> bool {
    macro_rules! is_one {
        ($($P:ty,)*) => { $( TypeId::of::<T>() == TypeId::of::<$P>() || )* false };
    }
    plain_types!(is_one)
}

/// The bytes of a value that is encoded as its memory.
#[inline]
pub(crate) fn as_bytes<T: Message>(value: &T) -> Option<&[u8]> {
    macro_rules! of_number {
        ($($N:ty,)*) => { $(
            if TypeId::of::<T>() == TypeId::of::<$N>() && let Some(number) = (value as &dyn Any).downcast_ref::<$N>() {
                return Some(bytemuck::bytes_of(number));
            }
        )* };
    }
    numbers!(of_number,);
    None
}

#[inline]
pub(crate) fn put<T: Message>(value: &T, writer: &mut Writer<'_>) -> Result<(), CodecError> {
    macro_rules! put_plain {
        ($($P:ty,)*) => { $(
            if TypeId::of::<T>() == TypeId::of::<$P>() && let Some(value) = (value as &dyn Any).downcast_ref::<$P>() {
                return value.put(writer);
            }
        )* };
    }
    plain_types!(put_plain);
    via_serde::put(value, writer, via_serde::again::<T>)
}

#[inline]
fn take<T: Message>(reader: &mut Reader<'_>) -> Result<T, CodecError> {
    let mut place: Option<T> = None;
    macro_rules! take_plain {
        ($($P:ty,)*) => { $(
            if TypeId::of::<T>() == TypeId::of::<$P>()
                && let Some(place) = (&mut place as &mut dyn Any).downcast_mut::<Option<$P>>()
            {
                *place = Some(<$P>::get(reader)?);
            }
        )* };
    }
    plain_types!(take_plain);
    match place {
        Some(value) => Ok(value),
        None => via_serde::take(reader),
    }
}

/// Whether a task of type `T` writes `Option<T>` otherwise than [`put_option`], because `T` is plain but none of `plain_types`.
pub(crate) fn is_option_otherwise<T: Message>() -> bool {
    !is_plain::<T>() && names_plain(std::any::type_name::<T>())
}

/// Whether the type of that name is plain: generic code cannot ask otherwise.
fn names_plain(name: &str) -> bool {
    const NUMBERS: [&str; 14] =
        ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128", "i128", "usize", "isize", "f32", "f64"];
    const OTHERS: [&str; 6] =
        ["bool", "char", "()", "alloc::string::String", "std::path::PathBuf", "std::ffi::os_str::OsString"];
    let inside = |head: &str, tail: &str| name.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
    let numbers = [inside("alloc::vec::Vec<", ">"), inside("alloc::boxed::Box<[", "]>")].into_iter().flatten().next();
    let array = inside("[", "]").and_then(|array| array.split_once("; ")).map(|(number, _)| number);
    if let Some(number) = numbers.or(array) {
        return NUMBERS.contains(&number);
    }
    if let Some(value) = inside("core::option::Option<", ">") {
        return names_plain(value);
    }
    if let Some(both) = inside("core::result::Result<", ">") {
        return both.match_indices(", ").any(|(at, comma)| {
            both.split_at_checked(at)
                .is_some_and(|(value, error)| names_plain(value) && error.strip_prefix(comma).is_some_and(names_plain))
        });
    }
    NUMBERS.contains(&name) || OTHERS.contains(&name)
}

/// Appends a value or none, as the parameter or the result of a task of type `Option<T>`.
///
/// Where [`is_option_otherwise`], such a task cannot read this.
pub(crate) fn put_option<T: Message>(value: Option<T>, writer: &mut Writer<'_>) -> Result<(), CodecError> {
    match value {
        value if !is_plain::<T>() => via_serde::put(&value, writer, via_serde::again::<Option<T>>),
        None => writer.put_bytes(&[0]),
        Some(value) => {
            writer.put_bytes(&[1])?;
            put(&value, writer)
        }
    }
}

/// Takes what [`put_option`] appended.
pub(crate) fn take_option<T: Message>(reader: &mut Reader<'_>) -> Result<Option<T>, CodecError> {
    if !is_plain::<T>() {
        return via_serde::take(reader);
    }
    match reader.take_array()? {
        [0] => Ok(None),
        [1] => take(reader).map(Some),
        [other] => Err(CodecError::bad_variant("variant of Option", other)),
    }
}

/// Encodes a message: up to `threshold` bytes into `buffer`, which is used again, else into `spill`. With the handles
/// beside it.
///
/// # Errors
/// The value refuses, or there is no memory for its bytes.
#[inline]
pub(crate) fn to_message<T: Message>(
    value: &T,
    buffer: Vec<u8>,
    (threshold, spill): (usize, &mut dyn Spill),
) -> Result<(Encoded, Handles), CodecError> {
    let mut handles = Handles::default();
    let mut writer = Writer::new(buffer, threshold, spill);
    if is_plain::<T>() {
        put(value, &mut writer)?;
    } else {
        handles::collect(&mut handles, || put(value, &mut writer))?;
    }
    Ok((writer.finish()?, handles))
}

/// The message that `bytes` are, which should begin at a multiple of [`ALIGNMENT`](super::ALIGNMENT), with these handles beside it.
///
/// # Errors
/// They are none of this type.
#[inline]
pub(crate) fn of_message<T: Message>(bytes: &[u8], received: &Received) -> Result<T, CodecError> {
    let mut reader = Reader::new(bytes);
    let value = if is_plain::<T>() { take(&mut reader)? } else { handles::provide(received, || take(&mut reader))? };
    reader.finish()?;
    Ok(value)
}

/// Reads these bytes as a value of types that take the serde format in both of its ways, and sends again what they are: for the
/// fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn any(bytes: &[u8]) {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Loose {
        Nothing,
        Number(i64),
        Text(String),
        List(Vec<Loose>),
        Map(BTreeMap<String, Loose>),
    }

    #[derive(Serialize, Deserialize)]
    #[expect(clippy::option_option, reason = "they have to stay apart")]
    enum Kind {
        Unit,
        Path(PathBuf),
        Pair(u8, Option<Option<()>>),
        Fields {
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            list: Vec<(f64, char)>,
            #[serde(flatten)]
            more: BTreeMap<String, Loose>,
        },
    }

    fn again<T: Message>(bytes: &[u8]) {
        let Ok(value) = of_message::<T>(bytes, &Received::default()) else { return };
        let Ok((Encoded::Small(sent), _)) = to_message(&value, Vec::new(), (usize::MAX, &mut super::NoSpill)) else {
            return;
        };
        let arrived = of_message::<T>(&sent, &Received::default());
        assert!(arrived.is_ok(), "what was sent does not arrive: {:?}", arrived.err());
    }

    again::<Vec<Loose>>(bytes);
    again::<Vec<Kind>>(bytes);
    again::<Option<Result<Vec<String>, Loose>>>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::NoSpill;
    use serde::{Deserialize, Serialize};

    fn bytes_of<T: Message>(value: &T) -> Vec<u8> {
        match to_message(value, Vec::new(), (usize::MAX, &mut NoSpill)).unwrap() {
            (Encoded::Small(bytes), handles) => {
                assert!(handles.is_empty());
                bytes
            }
            (Encoded::Spilled(_), _) => unreachable!("there is no spill"),
        }
    }

    fn round<T: Message + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = bytes_of(value);
        assert_eq!(of_message::<T>(&bytes, &Received::default()).unwrap(), *value);
        assert!(bytes.is_empty() || of_message::<T>(&bytes[1..], &Received::default()).is_err());
    }

    #[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
    struct Point {
        name: String,
        at: (i32, Option<char>),
    }

    #[test]
    fn every_type_comes_back_and_nothing_is_left_over() {
        round(&7u8);
        round(&[1u16, 2, 3]);
        round(&-7i64);
        round(&true);
        round(&());
        round(&"text".to_owned());
        round(&vec![1.5f64, -2.5]);
        round(&vec!["a".to_owned(), String::new()]);
        round(&vec![1u16, 2, 3].into_boxed_slice());
        round(&PathBuf::from("a/b"));
        round(&Point { name: "p".to_owned(), at: (-1, Some('é')) });
    }

    #[test]
    fn numbers_in_bulk_travel_as_they_are() {
        assert_eq!(bytes_of(&vec![7u8; 1000]).len(), 1016);
        assert_eq!(bytes_of(&7u64), 7u64.to_ne_bytes());
    }

    #[test]
    fn a_number_is_what_it_would_be_by_the_long_way() {
        assert_eq!(as_bytes(&-7i32).unwrap(), bytes_of(&-7i32));
        assert_eq!(as_bytes(&[0.5f64, 1.5, 2.5]).unwrap(), bytes_of(&[0.5f64, 1.5, 2.5]));
        assert!(as_bytes(&'c').is_none() && as_bytes(&vec![7u8]).is_none());
    }

    #[test]
    fn option_is_written_as_a_task_writes_it() {
        fn check<T: Message + Clone + PartialEq + std::fmt::Debug>(
            value: &T,
            by_task: &dyn Fn(&Option<T>, &mut Writer<'_>),
        ) {
            for value in [None, Some(value.clone())] {
                let write = |put: &dyn Fn(&mut Writer<'_>)| {
                    let mut none = NoSpill;
                    let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
                    put(&mut writer);
                    match writer.finish().unwrap() {
                        Encoded::Small(bytes) => bytes,
                        Encoded::Spilled(_) => unreachable!("there is no spill"),
                    }
                };
                let bytes = write(&|writer| put_option(value.clone(), writer).unwrap());
                assert_eq!(bytes, write(&|writer| by_task(&value, writer)));
                let mut reader = Reader::new(&bytes);
                assert_eq!(take_option::<T>(&mut reader).unwrap(), value);
                reader.finish().unwrap();
            }
        }
        #[expect(clippy::ref_option, reason = "it is a task's argument as it lies")]
        fn plain<T: Plain>(value: &Option<T>, writer: &mut Writer<'_>) {
            value.put(writer).unwrap();
        }
        #[expect(clippy::ref_option, reason = "it is a task's argument as it lies")]
        fn serde<T: Message>(value: &Option<T>, writer: &mut Writer<'_>) {
            via_serde::put(value, writer, via_serde::again::<Option<T>>).unwrap();
        }
        check(&7_u64, &plain);
        check(&"text".to_owned(), &plain);
        check(&vec![1.5_f64, 2.5], &plain);
        check(&(), &plain);
        check(&Point { name: "p".to_owned(), at: (-1, None) }, &serde);
        check(&vec!["a".to_owned()], &serde);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let refused = to_message(&vec![0u8; 100], Vec::new(), (50, &mut NoSpill));
        assert!(refused.unwrap_err().to_string().contains("no memory for the payload"));
    }
}
