//! What a log says of a value: compared with what it says of the value that was read from it.
//!
//! Owns: what counts as the same. Runs in: every process that encodes, in a trial. Never: minds the order of a map or of a set.
//!
//! The *shape* of a value is all kinds, names and counts in it; with its *leaves*, all of it. The order of elements and entries is no
//! part of it: a hash map has another one each time that it is made.

use super::{LogCursor, Parsed, Tag, may_go_deeper};

/// Mixes numbers in their order.
fn mix(hash: u64, number: u64) -> u64 {
    (hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95)
}

fn of_bytes(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(mix(hash, bytes.len() as u64), |hash, byte| mix(hash, u64::from(*byte)))
}

/// A number for the shape of the value in this log, or for all of it.
///
/// # Errors
/// It goes deeper than this thread's stack.
pub(in crate::codec) fn shape(log: &[u8], leaves: bool) -> Parsed<u64> {
    ShapeHasher { cursor: LogCursor::new(log), leaves }.value()
}

struct ShapeHasher<'a> {
    cursor: LogCursor<'a>,
    leaves: bool,
}

impl ShapeHasher<'_> {
    fn value(&mut self) -> Parsed<u64> {
        let tag = self.cursor.tag()?;
        self.of(tag)
    }

    fn of(&mut self, tag: Tag) -> Parsed<u64> {
        may_go_deeper()?;
        // One kind, and what it is belongs to the leaves.
        let kind = if tag == Tag::True { Tag::False } else { tag };
        let hash = mix(0x9e37_79b9, kind as u64);
        Ok(match tag {
            Tag::Some => mix(hash, self.value()?),
            Tag::Seq => {
                self.cursor.len()?;
                mix(hash, self.unordered(Self::of)?)
            }
            Tag::Map => {
                self.cursor.len()?;
                mix(hash, self.unordered(|shape, key| Ok(mix(shape.of(key)?, shape.value()?)))?)
            }
            Tag::Tuple | Tag::Struct => self.ordered(hash)?,
            Tag::UnitVariant | Tag::NewtypeVariant | Tag::TupleVariant | Tag::StructVariant => {
                self.cursor.len()?;
                let hash = of_bytes(hash, self.cursor.piece()?);
                match tag {
                    Tag::UnitVariant => hash,
                    Tag::NewtypeVariant => mix(hash, self.value()?),
                    _ => self.ordered(hash)?,
                }
            }
            _ => {
                let start = self.cursor.at;
                self.cursor.skip(tag)?;
                let leaf = &self.cursor.bytes[start..self.cursor.at];
                if self.leaves { mix(of_bytes(hash, leaf), tag as u64) } else { hash }
            }
        })
    }

    fn ordered(&mut self, mut hash: u64) -> Parsed<u64> {
        loop {
            hash = match self.cursor.tag()? {
                Tag::End => return Ok(hash),
                Tag::Field => of_bytes(hash, self.cursor.piece()?),
                tag => mix(hash, self.of(tag)?),
            }
        }
    }

    fn unordered(&mut self, mut next: impl FnMut(&mut Self, Tag) -> Parsed<u64>) -> Parsed<u64> {
        let (mut sum, mut count) = (0_u64, 0);
        loop {
            match self.cursor.tag()? {
                Tag::End => return Ok(mix(sum, count)),
                tag => sum = sum.wrapping_add(mix(1, next(self, tag)?)),
            }
            count += 1;
        }
    }
}

/// Says where two logs begin to differ, for people.
pub(in crate::codec) fn difference(written: &[u8], read: &[u8]) -> String {
    let (mut written, mut read) = (LogCursor::new(written), LogCursor::new(read));
    let mut place = Vec::new();
    match differ(&mut written, &mut read, &mut place) {
        Ok(Some(how)) if place.is_empty() => how,
        Ok(Some(how)) => format!("in `{}`: {how}", place.join(".")),
        Ok(None) | Err(_) => "it would be read as another value".to_owned(),
    }
}

/// Goes through two values at once, up to the first difference.
fn differ(written: &mut LogCursor<'_>, read: &mut LogCursor<'_>, place: &mut Vec<String>) -> Parsed<Option<String>> {
    may_go_deeper()?;
    let (tag, other) = (written.tag()?, read.tag()?);
    match (tag, other) {
        (Tag::True, Tag::False) | (Tag::False, Tag::True) => {}
        _ if tag != other && (tag as u8) < Tag::UnitVariant as u8 => {
            return Ok(Some(format!("{tag} would be read as {other}")));
        }
        _ => {}
    }
    match tag {
        Tag::Some => differ(written, read, place),
        Tag::Seq | Tag::Map => {
            written.len()?;
            read.len()?;
            parts(written, read, place)
        }
        Tag::Tuple | Tag::Struct => parts(written, read, place),
        Tag::UnitVariant | Tag::NewtypeVariant | Tag::TupleVariant | Tag::StructVariant => {
            written.len()?;
            let name = written.name()?;
            if (other as u8) < Tag::UnitVariant as u8 {
                return Ok(Some(format!("the variant `{name}` would be read as {other}")));
            }
            read.len()?;
            let found = read.name()?;
            if name != found || tag != other {
                return Ok(Some(format!("the variant `{name}` would be read as `{found}`")));
            }
            place.push(name.to_owned());
            let inside = match tag {
                Tag::UnitVariant => None,
                Tag::NewtypeVariant => differ(written, read, place)?,
                _ => parts(written, read, place)?,
            };
            if inside.is_none() {
                place.pop();
            }
            Ok(inside)
        }
        _ => {
            let (start, from) = (written.at, read.at);
            written.skip(tag)?;
            read.skip(other)?;
            let same = tag == other && written.bytes[start..written.at] == read.bytes[from..read.at];
            // A leaf that differs is looked for where it has a name.
            Ok((!same && !place.is_empty()).then(|| "another value would be read".to_owned()))
        }
    }
}

/// Goes through elements, entries or fields of two values.
fn parts(written: &mut LogCursor<'_>, read: &mut LogCursor<'_>, place: &mut Vec<String>) -> Parsed<Option<String>> {
    loop {
        match (written.peek()?, read.peek()?) {
            (Tag::End, Tag::End) => {
                written.tag()?;
                read.tag()?;
                return Ok(None);
            }
            (Tag::End, _) => return Ok(Some("more would be read than was written".to_owned())),
            (_, Tag::End) => return Ok(Some("less would be read than was written".to_owned())),
            (Tag::Field, Tag::Field) => {
                written.tag()?;
                read.tag()?;
                let (name, found) = (written.name()?, read.name()?);
                if name != found {
                    return Ok(Some(format!("the field `{name}` would be read as `{found}`")));
                }
                place.push(name.to_owned());
                if let Some(how) = differ(written, read, place)? {
                    return Ok(Some(how));
                }
                place.pop();
            }
            _ => {
                if let Some(how) = differ(written, read, place)? {
                    return Ok(Some(how));
                }
            }
        }
    }
}
