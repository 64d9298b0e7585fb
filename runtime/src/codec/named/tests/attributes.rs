//! Serde's attributes: what each of them makes of a value that travels.
//!
//! Runs in: the test process. Never: starts a process.

use serde::{Deserialize, Serialize};

use super::{Skips, Sparse, arrives, by_name, by_place, refused, sent};

#[test]
fn variant_behind_a_skipped_one_arrives_as_itself() {
    by_place(&Skips::A);
    by_name(&Skips::C);
    by_name(&Skips::D(3));
    by_name(&Skips::E { x: 3 });
    by_name(&vec![Skips::A, Skips::D(1), Skips::C]);
    let error = sent(&Skips::B).unwrap_err().to_string();
    assert!(error.contains("Skips::B cannot be serialized"), "{error}");
}

#[test]
fn variant_that_is_never_read_is_refused() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Half {
        A,
        #[serde(skip_deserializing)]
        B,
        C,
    }
    by_place(&Half::A);
    by_name(&Half::C);
    let error = refused(&Half::B);
    assert!(error.contains("the variant `B` is written and not read"), "{error}");
}

#[test]
fn aliases_of_variants_hide_no_skipped_one() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Names {
        A,
        #[serde(skip)]
        #[expect(dead_code, reason = "it is there to be skipped")]
        B,
        #[serde(alias = "Bb")]
        C,
        D,
    }
    by_name(&Names::C);
    by_name(&Names::D);
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Other {
        #[serde(alias = "x", alias = "y", rename = "a")]
        A,
        #[serde(rename(serialize = "bee", deserialize = "b"))]
        B(u8),
        #[serde(other)]
        Z,
    }
    by_place(&vec![Other::Z, Other::A, Other::B(3)]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct In {
    #[serde(skip_serializing, default)]
    password: u32,
    name: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Out {
    id: u32,
    #[serde(skip_deserializing)]
    balance: u32,
}

#[test]
fn field_of_one_direction_arrives_as_its_default() {
    for _ in 0..2 {
        assert_eq!(arrives(&In { password: 1, name: 2 }).unwrap(), (In { password: 0, name: 2 }, true));
        assert_eq!(arrives(&Out { id: 3, balance: 4 }).unwrap(), (Out { id: 3, balance: 0 }, true));
    }
}

#[test]
fn crossed_fields_are_refused_or_come_back_whole() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Crossed {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "it is there to be left out")]
        a: u32,
        #[serde(skip_deserializing)]
        b: u32,
        c: u32,
    }
    let error = refused(&Crossed { a: 1, b: 2, c: 3 });
    assert!(error.contains("`b`") && error.contains("the field `a` is read and not written"), "{error}");
    assert!(error.contains("#[serde(skip)]"), "{error}");
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Seven {
        #[serde(skip_serializing, default = "seven")]
        a: u32,
        #[serde(skip_deserializing)]
        b: u32,
        c: u32,
    }
    fn seven() -> u32 {
        7
    }
    // `b` is what it would be anyway.
    assert_eq!(arrives(&Seven { a: 1, b: 0, c: 3 }).unwrap(), (Seven { a: 7, b: 0, c: 3 }, true));
    assert!(refused(&Seven { a: 1, b: 2, c: 3 }).contains("`b`"));
    assert_eq!(arrives(&Seven { a: 1, b: 0, c: 3 }).unwrap(), (Seven { a: 7, b: 0, c: 3 }, true));
}

#[test]
fn names_that_differ_by_direction_arrive() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(rename_all(serialize = "camelCase", deserialize = "snake_case"))]
    struct Web {
        user_name: String,
        at: u8,
    }
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    #[serde(default, rename_all(serialize = "camelCase"))]
    struct Lenient {
        user_name: String,
        at: u8,
    }
    for at in [0, 1, 0, 2] {
        by_place(&Web { user_name: "me".to_owned(), at });
    }
    for user_name in ["", "me", "", "you"].map(str::to_owned) {
        let value = Lenient { user_name, at: 3 };
        assert_eq!(format!("{:?}", arrives(&value).unwrap().0), format!("{value:?}"));
    }
}

#[test]
fn renames_and_aliases_need_no_names() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        #[serde(alias = "b", alias = "a")]
        first_field: u8,
        #[serde(rename = "x")]
        second: Option<u8>,
        #[serde(skip)]
        #[expect(dead_code, reason = "it is there to be skipped")]
        third: u8,
        #[serde(default)]
        fourth: Vec<u8>,
    }
    by_place(&Named { first_field: 1, second: Some(2), third: 0, fourth: vec![4] });
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Wrapped(Named);
    by_place(&Wrapped(Named { first_field: 1, second: None, third: 0, fourth: vec![] }));
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(from = "(u8, String)", into = "(u8, String)")]
    struct Converted(u8, String);
    impl From<(u8, String)> for Converted {
        fn from((number, text): (u8, String)) -> Self {
            Self(number, text)
        }
    }
    impl From<Converted> for (u8, String) {
        fn from(Converted(number, text): Converted) -> Self {
            (number, text)
        }
    }
    by_place(&Converted(1, "one".to_owned()));
}

#[test]
fn fields_that_are_left_out_for_their_value_arrive() {
    by_place(&Sparse { first: Some(1), second: 2, third: vec![3] });
    by_name(&Sparse { first: None, second: 2, third: vec![] });
    by_name(&Sparse { first: None, second: 2, third: vec![3] });
    by_name(&Sparse { first: Some(1), second: 2, third: vec![3] });
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Strange {
        #[serde(skip_serializing_if = "is_zero", default = "seven")]
        number: u8,
    }
    fn seven() -> u8 {
        7
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde passes it")]
    fn is_zero(number: &u8) -> bool {
        *number == 0
    }
    by_place(&Strange { number: 3 });
    assert!(refused(&Strange { number: 0 }).contains("more would be read"));
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Needed {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        list: Vec<u8>,
    }
    by_place(&Needed { list: vec![1] });
    assert!(refused(&Needed { list: vec![] }).contains("`list` is read and not written"));
}
