//! Has the sender read what it wrote, where nothing says yet that its reader would get the same.
//!
//! Owns: the judgement whether a value arrives: by the places of its parts, by their names, or not at all. Runs in: every process
//! that encodes, on the thread that does. Never: runs for a value with known [sites](super::sites) only.
//!
//! # A trial
//!
//! The value is written once more, into a [`Log`]: everything that serde says of it, with names. Its type then reads that log in one of
//! two ways. *By places*, as bincode's reader would, each part as what the type asks for: then whatever is written as one thing and
//! read as another is found, and so are fields that are written and not read. *By names*, as a reader of JSON would. What was
//! read is written into a second log, and the two are compared: so a variant that would be read as another one is found, however
//! many names it has.
//!
//! A value that does well by places is sent so, and its sites are known from then on. A value that does not goes by names if it does well
//! by names, and so does each later one of its type, after a trial of its own: what types do that ask what comes next depends on
//! values. Else it is the sender's error.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;

use super::handles::{self, Received};
use super::named::{BY_NAME, LOGGED, Log, difference, log, shape};
use super::paths;
use super::sites::{SiteRecorder, Sites, TypeRecord, Way};
use super::{CodecError, Reader};

/// Reads a value of the type that is tried, and writes it into another log. It is made where the type's lifetimes may be any.
pub type Again = for<'p, 'l, 'w> fn(&mut Reader<'p>, &'l mut Log<'w>) -> Result<(), CodecError>;

/// What a trial noted while a type read.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing, in no relation to the others")]
struct Findings {
    /// What was read as something else than it was written as.
    misplaced: Option<String>,
    /// Which names of a struct do not meet.
    names: Option<String>,
    /// Whether a struct reads a field that it does not write, and writes one that it does not read; or both under another name.
    crossed: bool,
    /// Whether a struct that was read by names has them in another order than it is written in.
    moved: bool,
    /// Whether serde's words say that a kind or a value was not expected.
    unexpected: bool,
    /// Whether serde's words say that a name was not expected.
    unnamed: bool,
    too_deep: bool,
}

thread_local! {
    /// What the innermost trial of this thread has noted.
    static FINDINGS: RefCell<Option<Findings>> = const { RefCell::new(None) };
}

fn note(note: impl FnOnce(&mut Findings)) {
    FINDINGS.with_borrow_mut(|findings| findings.as_mut().map(note));
}

/// Whether this thread tries a value.
pub(super) fn is_on() -> bool {
    FINDINGS.with_borrow(Option::is_some)
}

pub(super) fn misplaced(why: &str) {
    note(|findings| {
        findings.misplaced.get_or_insert_with(|| why.to_owned());
    });
}

pub(super) fn crossed(why: &str, is_crossed: bool) {
    note(|findings| {
        findings.names.get_or_insert_with(|| why.to_owned());
        findings.crossed |= is_crossed;
    });
}

pub(super) fn moved() {
    note(|findings| findings.moved = true);
}

pub(super) fn unexpected() {
    note(|findings| findings.unexpected = true);
}

pub(super) fn unnamed() {
    note(|findings| findings.unnamed = true);
}

pub(super) fn too_deep() {
    note(|findings| findings.too_deep = true);
}

/// How a trial ended.
#[derive(Debug)]
enum Verdict {
    Good,
    /// Nothing can be said: the stack or the memory is not enough for it, or the type's own code panicked.
    Unclear,
    /// The type refused by itself what it had written; whether in serde's words for what was not expected.
    Refused(String, bool),
    /// It does not arrive, for this reason. Whether a struct's names are crossed.
    Bad(String, bool),
}

/// What a log is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Places,
    /// By place, though names do not meet: then all has to come back.
    PlacesWhole,
    Names,
    /// By name, where all has to come back.
    NamesWhole,
}

/// Has the type read a log, and compares.
fn read(written: &Log<'_>, question: Question, again: Again) -> Verdict {
    struct Scope(Option<Findings>);
    impl Drop for Scope {
        fn drop(&mut self) {
            FINDINGS.set(self.0.take());
        }
    }
    let scope = Scope(FINDINGS.replace(Some(Findings::default())));
    let received = handles::with_collected(Received::of_own);
    let mut second = written.again(LOGGED);
    let mut reader = Reader::new(written.bytes());
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        handles::provide(&received, || again(&mut reader, &mut second))?;
        reader.finish()
    }));
    let findings = FINDINGS.take().unwrap_or_default();
    drop(scope);
    let whole = findings.moved || matches!(question, Question::PlacesWhole | Question::NamesWhole);
    let crossed = findings.crossed;
    match outcome {
        _ if findings.too_deep || second.was_too_deep() => return Verdict::Unclear,
        Err(_) => return Verdict::Unclear,
        Ok(_) if findings.misplaced.is_some() => {
            return Verdict::Bad(findings.names.or(findings.misplaced).unwrap_or_default(), crossed);
        }
        Ok(Err(error)) if findings.unnamed => return Verdict::Bad(error.to_string(), crossed),
        Ok(Err(error)) => return Verdict::Refused(error.to_string(), findings.unexpected),
        Ok(Ok(())) => {}
    }
    if let (Some(names), false) = (findings.names, question == Question::PlacesWhole) {
        return Verdict::Bad(names, crossed);
    }
    let (written, second) = (&written.bytes()[1..], &second.bytes()[1..]);
    match (shape(written, whole), shape(second, whole)) {
        (Ok(one), Ok(other)) if one == other => Verdict::Good,
        (Ok(_), Ok(_)) => Verdict::Bad(difference(written, second), crossed),
        _ => Verdict::Unclear,
    }
}

/// Writes a value into a log.
pub(super) type WriteLog<'f> = &'f dyn Fn(&mut Log<'_>) -> Result<(), CodecError>;

/// How a value is to be sent.
#[derive(Debug)]
pub(super) enum SentForm {
    /// As it was written by places.
    ByPlace,
    /// As these bytes, with their mark.
    ByName(Vec<u8>),
}

/// Decides how a value is sent that was written by places, with these sites that are not known, or that needs names.
///
/// # Errors
/// Neither way would have it arrive.
#[cold]
pub(super) fn judge(
    name: &'static str,
    record: &TypeRecord,
    (new_sites, need): (Sites, Option<String>),
    write: WriteLog<'_>,
    again: Again,
) -> Result<SentForm, CodecError> {
    let verdict = match need {
        Some(why) => Verdict::Bad(why, false),
        None if record.way() == Way::ByEither => Verdict::Bad(String::new(), true),
        None => by_place(record, write, again),
    };
    match verdict {
        Verdict::Good => {
            record.learn(&new_sites);
            if record.way() == Way::Untried {
                record.set_way(Way::ByPlace);
            }
            Ok(SentForm::ByPlace)
        }
        Verdict::Unclear | Verdict::Refused(_, false) => Ok(SentForm::ByPlace),
        Verdict::Refused(why, true) => match by_name(name, record, (&why, false), write, again) {
            Err(NotByName::Own(_)) => Ok(SentForm::ByPlace),
            sent => Ok(sent?),
        },
        Verdict::Bad(why, crossed) => Ok(by_name(name, record, (&why, crossed), write, again)?),
    }
}

/// Whether a value does well by places. First without those elements of sequences that bring nothing new, which types may
/// refuse that know how many they have.
fn by_place(record: &TypeRecord, write: WriteLog<'_>, again: Again) -> Verdict {
    let mut verdict = Verdict::Unclear;
    for samples in [true, false] {
        let watch = SiteRecorder::new(record.known());
        let mut log = Log::new(LOGGED, false, samples, &watch);
        if write(&mut log).is_err() {
            return Verdict::Unclear;
        }
        verdict = read(&log, Question::Places, again);
        if matches!(verdict, Verdict::Good) {
            break;
        }
    }
    verdict
}

/// Why a value is not sent by names.
#[derive(Debug)]
pub(super) enum NotByName {
    /// Its type refused by itself what it had written.
    Own(CodecError),
    Other(CodecError),
}

impl From<NotByName> for CodecError {
    fn from(refused: NotByName) -> Self {
        let (NotByName::Own(error) | NotByName::Other(error)) = refused;
        error
    }
}

/// Writes a value by names. `before` is why it is not sent by places, and whether the names of a struct are crossed: then all of it
/// has to come back, by names or else by places.
///
/// # Errors
/// It would not arrive.
#[cold]
pub(super) fn by_name(
    name: &'static str,
    record: &TypeRecord,
    (before, crossed): (&str, bool),
    write: WriteLog<'_>,
    again: Again,
) -> Result<SentForm, NotByName> {
    let watch = SiteRecorder::new(record.known());
    let mut log = Log::new(BY_NAME, true, false, &watch);
    write(&mut log).map_err(NotByName::Other)?;
    let (question, way) = if crossed { (Question::NamesWhole, Way::ByEither) } else { (Question::Names, Way::ByName) };
    match read(&log, question, again) {
        Verdict::Good => {}
        Verdict::Unclear if !crossed => {}
        verdict => {
            let names = if crossed { why_not_by_place(record, write, again) } else { String::new() };
            if crossed && names.is_empty() {
                record.set_way(way);
                return Ok(SentForm::ByPlace);
            }
            return Err(match verdict {
                Verdict::Refused(why, _) => NotByName::Own(would_not_arrive(name, &names, &why)),
                Verdict::Bad(why, _) => NotByName::Other(would_not_arrive(name, &names, &why)),
                Verdict::Good | Verdict::Unclear => NotByName::Other(would_not_arrive(name, &names, before)),
            });
        }
    }
    record.set_way(way);
    Ok(SentForm::ByName(log.into_bytes()))
}

/// Why not all of a value comes back by places, where names do not meet; nothing if it does.
fn why_not_by_place(record: &TypeRecord, write: WriteLog<'_>, again: Again) -> String {
    let watch = SiteRecorder::new(record.known());
    let mut log = Log::new(LOGGED, false, false, &watch);
    let written = write(&mut log);
    let alone = || read(&log, Question::PlacesWhole, again);
    match written.map(|()| alone()) {
        Ok(Verdict::Good) => String::new(),
        Ok(Verdict::Refused(why, _)) => why,
        Ok(Verdict::Bad(..) | Verdict::Unclear) | Err(_) => match read(&log, Question::Places, again) {
            Verdict::Bad(why, _) => why,
            _ => "its names do not meet".to_owned(),
        },
    }
}

/// The sender's error.
fn would_not_arrive(name: &str, by_place: &str, by_name: &str) -> CodecError {
    let mut why = format!("a value of `{name}` would not arrive as it was sent");
    let reasons = [by_place, by_name];
    let said = |at: usize| !reasons[at].is_empty() && !reasons[..at].contains(&reasons[at]);
    for (at, reason) in reasons.iter().enumerate().filter(|(at, _)| said(*at)) {
        why.push_str(if at == 0 { ": " } else { "; " });
        why.push_str(reason);
    }
    why.push_str(
        ". What serde writes of it is not what it reads: use `#[serde(skip)]` in place of `skip_serializing` or \
         `skip_deserializing` alone, `#[serde(default)]` for a field that may be left out, and `#[serde(tag = \"…\")]` in place of \
         `untagged` where variants look alike",
    );
    CodecError::new(why)
}

/// What serde said of a value, with the way out where that is known.
pub(super) fn explained(error: CodecError) -> CodecError {
    if error.to_string().contains(paths::REFUSAL) {
        return CodecError::new(format!(
            "{}; this path stands where it cannot be told from text: keep it as an `OsString`, or as a `PathBuf` in a field of its own",
            paths::REFUSAL
        ));
    }
    error
}

/// Says what sending a value would say, whatever is known of its type.
///
/// # Errors
/// It would not be sent, or its type refuses to read it.
pub(super) fn check(
    name: &'static str,
    need: Option<String>,
    write: WriteLog<'_>,
    again: Again,
) -> Result<(), CodecError> {
    let record = TypeRecord::new();
    let verdict = need.map_or_else(|| by_place(&record, write, again), |why| Verdict::Bad(why, false));
    match verdict {
        Verdict::Good | Verdict::Unclear => Ok(()),
        Verdict::Refused(why, false) => Err(CodecError::new(why)),
        Verdict::Refused(why, true) => Ok(by_name(name, &record, (&why, false), write, again).map(drop)?),
        Verdict::Bad(why, crossed) => Ok(by_name(name, &record, (&why, crossed), write, again).map(drop)?),
    }
}

/// Appends what is written of `value` to `log`: what an [`Again`] does second.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, to: &mut Log<'_>) -> Result<(), CodecError> {
    handles::active(|| log(value, to))
}
