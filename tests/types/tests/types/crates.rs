//! Common crates' types: each row of `docs/types.md` is a test here that sends values and compares what comes back.
//!
//! Runs in: the test process; the tasks in workers. Never: compares floats but bit by bit.

use process_task::StartMethod;
use process_task_types::{pool, travels};
use serde::{Deserialize, Serialize};

under_every_start_method! { within 300 seconds;
    bitflags_arrive_unchanged,
    bytes_arrive_unchanged,
    chrono_arrives_unchanged,
    either_arrives_unchanged,
    either_untagged_arrives_unchanged,
    indexmap_arrives_in_its_order,
    ipnet_arrives_unchanged,
    jiff_arrives_unchanged,
    nalgebra_arrives_to_the_last_bit,
    ndarray_arrives_to_the_last_bit,
    num_bigint_arrives_unchanged,
    ordered_float_arrives_to_the_last_bit,
    rust_decimal_arrives_with_its_scale,
    semver_arrives_unchanged,
    serde_json_arrives_unchanged,
    serde_json_raw_arrives_as_its_text,
    smallvec_arrives_unchanged,
    time_arrives_unchanged,
    toml_arrives_unchanged,
    url_arrives_unchanged,
    uuid_arrives_unchanged,
}

bitflags::bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Rights: u32 {
        const READ = 1;
        const WRITE = 2;
        const ALL = 0xFFFF_0000;
    }
}

fn bitflags_arrive_unchanged(method: StartMethod) {
    let unknown = Rights::from_bits_retain(0x8000_0100) | Rights::READ;
    travels! { &pool(method);
        rights: Rights = [Rights::empty(), Rights::READ | Rights::WRITE, Rights::all(), unknown];
    }
}

fn bytes_arrive_unchanged(method: StartMethod) {
    use bytes::{Bytes, BytesMut};
    let pool = pool(method);
    let long: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    travels! { &pool;
        bytes: Bytes = [Bytes::new(), Bytes::from_static(b"\xFF\0\x80"), Bytes::from(long).slice(3..4_999)];
        bytes_mut: BytesMut = [BytesMut::new(), BytesMut::from(&b"\xFF\0\x80"[..])];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamped {
    #[serde(with = "chrono::serde::ts_milliseconds")]
    at: chrono::DateTime<chrono::Utc>,
    #[serde(with = "chrono::serde::ts_nanoseconds_option")]
    until: Option<chrono::DateTime<chrono::Utc>>,
}

fn chrono_arrives_unchanged(method: StartMethod) {
    use chrono::{DateTime, FixedOffset, Month, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc, Weekday};
    let pool = pool(method);
    let moment = DateTime::from_timestamp(-1, 999_999_999).unwrap();
    let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_999_999_999).unwrap();
    let east = moment.with_timezone(&FixedOffset::east_opt(50_400).unwrap());
    let west = DateTime::UNIX_EPOCH.with_timezone(&FixedOffset::west_opt(34_200).unwrap());
    let stamped = Stamped { at: DateTime::from_timestamp_millis(-1).unwrap(), until: Some(moment) };
    travels! { &pool;
        utc: DateTime<Utc> = [DateTime::UNIX_EPOCH, moment, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC];
        fixed_offset: DateTime<FixedOffset> = [east, west], |one, other| one == other && one.offset() == other.offset();
        naive_date: NaiveDate = [NaiveDate::default(), NaiveDate::MIN, NaiveDate::MAX];
        naive_time: NaiveTime = [NaiveTime::MIN, leap];
        naive_date_time: NaiveDateTime = [NaiveDateTime::MIN, NaiveDateTime::MAX, NaiveDate::MAX.and_time(leap)];
        time_delta: TimeDelta = [TimeDelta::zero(), TimeDelta::nanoseconds(-1), TimeDelta::MIN, TimeDelta::MAX];
        weekday: Weekday = [Weekday::Mon, Weekday::Sun];
        month: Month = [Month::January, Month::December];
        stamped: Stamped = [Stamped { at: DateTime::UNIX_EPOCH, until: None }, stamped];
    }
}

fn either_arrives_unchanged(method: StartMethod) {
    use either::Either::{self, Left, Right};
    let pool = pool(method);
    travels! { &pool;
        either: Either<u8, String> = [Left(0), Right(String::new()), Left(255), Right("größer".to_owned())];
        nested: Either<Either<(), u8>, Vec<i64>> = [Left(Left(())), Left(Right(7)), Right(vec![]), Right(vec![-1])];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bare {
    #[serde(with = "either::serde_untagged")]
    number_or_text: either::Either<i64, String>,
}

fn either_untagged_arrives_unchanged(method: StartMethod) {
    use either::Either::{Left, Right};
    travels! { &pool(method);
        bare: Bare = [Left(i64::MIN), Right("ß".to_owned())].map(|number_or_text| Bare { number_or_text });
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rows {
    #[serde(with = "indexmap::map::serde_seq")]
    by_place: indexmap::IndexMap<(u8, char), String>,
}

fn indexmap_arrives_in_its_order(method: StartMethod) {
    use indexmap::{IndexMap, IndexSet};
    let pool = pool(method);
    let counts: IndexMap<String, u64> = ["z", "ä", "", "a"].into_iter().map(str::to_owned).zip(0..).collect();
    let by_place = [((2, 'b'), "two".to_owned()), ((1, 'ä'), String::new())].into();
    travels! { &pool;
        map: IndexMap<String, u64> = [IndexMap::new(), counts], |one, other| one.iter().eq(other);
        set: IndexSet<i32> = [IndexSet::new(), [3, i32::MIN, 2].into()], |one, other| one.iter().eq(other);
        rows: Rows = [Rows { by_place: IndexMap::new() }, Rows { by_place }], |one, other| {
            one.by_place.iter().eq(&other.by_place)
        };
    }
}

fn ipnet_arrives_unchanged(method: StartMethod) {
    use ipnet::{IpNet, Ipv4Net, Ipv6Net};
    let pool = pool(method);
    let four: [Ipv4Net; 3] = ["0.0.0.0/0", "10.1.2.3/8", "255.255.255.255/32"].map(|net| net.parse().unwrap());
    let six: [Ipv6Net; 3] = ["::/0", "fe80::1/64", "ffff::ffff/128"].map(|net| net.parse().unwrap());
    travels! { &pool;
        either: IpNet = [four.map(IpNet::V4), six.map(IpNet::V6)].concat();
        four: Ipv4Net = four;
        six: Ipv6Net = six;
    }
}

fn jiff_arrives_unchanged(method: StartMethod) {
    use jiff::civil::{Date, DateTime, Time};
    use jiff::tz::{Offset, TimeZone};
    use jiff::{SignedDuration, Span, Timestamp, ZonedDateTime};
    let pool = pool(method);
    let span = Span::new().years(1).days(2).nanoseconds(999);
    let places = [TimeZone::UTC, TimeZone::fixed(Offset::constant(14)), TimeZone::get("America/New_York").unwrap()];
    let zoned = places.map(|zone| Timestamp::UNIX_EPOCH.to_zoned_datetime(zone));
    travels! { &pool;
        timestamp: Timestamp = [Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX];
        date: Date = [Date::ZERO, Date::MIN, Date::MAX];
        time: Time = [Time::MIN, Time::MAX];
        date_time: DateTime = [DateTime::ZERO, DateTime::MIN, DateTime::MAX];
        signed_duration: SignedDuration = [SignedDuration::ZERO, SignedDuration::MIN, SignedDuration::MAX];
        span: Span = [Span::new(), span, -span], |one, other| one.fieldwise() == other.fieldwise();
        zoned: ZonedDateTime = zoned, |one, other| one == other && one.time_zone() == other.time_zone();
    }
}

/// Bits of floats that `==` does not tell apart, or finds different from themselves.
const FLOATS: [f64; 7] =
    [0.0, -0.0, f64::NAN, f64::NEG_INFINITY, f64::MIN_POSITIVE / 4.0, f64::MAX, f64::from_bits(0x7FF8_0000_DEAD_BEEF)];

fn same_bits<'a>(one: impl IntoIterator<Item = &'a f64>, other: impl IntoIterator<Item = &'a f64>) -> bool {
    one.into_iter().map(|float| float.to_bits()).eq(other.into_iter().map(|float| float.to_bits()))
}

fn nalgebra_arrives_to_the_last_bit(method: StartMethod) {
    use nalgebra::{DMatrix, DVector, Isometry3, Matrix2x3, Point3, UnitQuaternion, Vector3};
    let pool = pool(method);
    let matrix = DMatrix::from_row_slice(2, 3, &FLOATS[1..]);
    let turned = Isometry3::new(Vector3::new(0.1, -0.2, 1e300), Vector3::new(0.3, 0.0, -2.0));
    travels! { &pool;
        vector: Vector3<f64> = [Vector3::zeros(), Vector3::from_column_slice(&FLOATS[1..4])], |one, other| {
            same_bits(one, other)
        };
        point: Point3<i8> = [Point3::origin(), Point3::new(i8::MIN, -1, i8::MAX)];
        matrix: Matrix2x3<f64> = [Matrix2x3::zeros(), Matrix2x3::from_row_slice(&FLOATS[..6])], |one, other| {
            same_bits(one, other)
        };
        dynamic_vector: DVector<f64> = [DVector::zeros(0), DVector::from_column_slice(&FLOATS)], |one, other| {
            same_bits(one, other)
        };
        dynamic_matrix: DMatrix<f64> = [DMatrix::zeros(0, 4), matrix.clone(), matrix.transpose()], |one, other| {
            one.shape() == other.shape() && same_bits(one, other)
        };
        isometry: Isometry3<f64> = [Isometry3::identity(), turned];
        quaternion: UnitQuaternion<f64> = [UnitQuaternion::identity(), turned.rotation];
    }
}

fn ndarray_arrives_to_the_last_bit(method: StartMethod) {
    use ndarray::{Array0, Array1, Array2, ArrayD, arr0};
    let pool = pool(method);
    let table = Array2::from_shape_vec((2, 3), FLOATS[1..].to_vec()).unwrap();
    let deep = ArrayD::from_shape_fn(vec![2, 1, 3, 2], |at| format!("{at:?}"));
    travels! { &pool;
        scalar: Array0<f64> = [arr0(-0.0), arr0(f64::NAN)], |one, other| same_bits(one, other);
        list: Array1<f64> = [Array1::zeros(0), Array1::from_iter(FLOATS)], |one, other| same_bits(one, other);
        table: Array2<f64> = [Array2::zeros((0, 3)), table.clone(), table.reversed_axes()], |one, other| {
            one.shape() == other.shape() && same_bits(one, other)
        };
        dynamic: ArrayD<String> = [ArrayD::default(vec![]), ArrayD::default(vec![3, 0]), deep];
    }
}

fn num_bigint_arrives_unchanged(method: StartMethod) {
    use num_bigint::{BigInt, BigUint};
    let pool = pool(method);
    let large = BigUint::from(3u8).pow(10_000);
    let negative = -BigInt::from(large.clone());
    travels! { &pool;
        big_uint: BigUint = [BigUint::ZERO, BigUint::from(u64::MAX), BigUint::from(u128::MAX), large];
        big_int: BigInt = [BigInt::ZERO, BigInt::from(-1), BigInt::from(i128::MIN), negative];
    }
}

fn ordered_float_arrives_to_the_last_bit(method: StartMethod) {
    use ordered_float::{NotNan, OrderedFloat};
    let pool = pool(method);
    let numbers: Vec<_> = FLOATS.into_iter().filter_map(|float| NotNan::new(float).ok()).collect();
    travels! { &pool;
        doubles: OrderedFloat<f64> = FLOATS.map(OrderedFloat), |one, other| same_bits([&one.0], [&other.0]);
        numbers: NotNan<f64> = numbers, |one, other| one.to_bits() == other.to_bits();
        singles: OrderedFloat<f32> = [OrderedFloat(-0.0f32), OrderedFloat(f32::NAN), OrderedFloat(1e-45)], |a, b| {
            a.to_bits() == b.to_bits()
        };
    }
}

fn rust_decimal_arrives_with_its_scale(method: StartMethod) {
    use rust_decimal::Decimal;
    let decimals = ["0", "0.00", "-1.50", "0.0000000000000000000000000001"].map(|text| text.parse().unwrap());
    travels! { &pool(method);
        decimal: Decimal = [&decimals[..], &[Decimal::MIN, Decimal::MAX]].concat(), |one, other| {
            one.to_string() == other.to_string()
        };
    }
}

fn serde_json_arrives_unchanged(method: StartMethod) {
    use serde_json::{Map, Number, Value, json};
    let values = [
        Value::Null,
        json!(true),
        json!([0, -0.0, 0.1, 1e300, u64::MAX, i64::MIN, "ß\0", [], {}, null]),
        json!({"": {"größer": [{"a": null}, 1.0]}, "$serde_json::private::RawValue": "1", "b": 7}),
    ];
    let numbers = [Number::from(0), Number::from(u64::MAX), Number::from(i64::MIN), Number::from_f64(-0.0).unwrap()];
    let map: Map<String, Value> = [("z".to_owned(), json!([1])), ("ä".to_owned(), Value::Null)].into_iter().collect();
    // Their text tells `-0.0` from `0.0`, and `1.0` from `1`.
    travels! { &pool(method);
        value: Value = values, |one, other| one == other && format!("{one}") == format!("{other}");
        number: Number = numbers, |one, other| one == other && one.to_string() == other.to_string();
        map: Map<String, Value> = [Map::new(), map];
    }
}

fn serde_json_raw_arrives_as_its_text(method: StartMethod) {
    use serde_json::value::RawValue;
    let texts = ["null", "{ \"a\" : [1e400,\t\"ß\"] }", "123456789012345678901234567890"];
    travels! { &pool(method);
        raw: Box<RawValue> = texts.map(|text| RawValue::from_string(text.to_owned()).unwrap()), |one, other| {
            one.get() == other.get()
        };
    }
}

fn semver_arrives_unchanged(method: StartMethod) {
    use semver::{Comparator, Version, VersionReq};
    let pool = pool(method);
    let largest = format!("{0}.{0}.{0}-rc.1.x-y+build.007", u64::MAX);
    travels! { &pool;
        version: Version = [Version::new(0, 0, 0), "1.2.3-0.a".parse().unwrap(), largest.parse().unwrap()];
        version_req: VersionReq = [VersionReq::STAR, ">=1.2, <2.0.0-rc.1".parse().unwrap(), "~1".parse().unwrap()];
        comparator: Comparator = ["^0.1.2-alpha".parse().unwrap(), "=1".parse::<Comparator>().unwrap()];
    }
}

fn smallvec_arrives_unchanged(method: StartMethod) {
    use smallvec::{SmallVec, smallvec};
    let pool = pool(method);
    travels! { &pool;
        numbers: SmallVec<[u32; 2]> = [smallvec![], smallvec![1, u32::MAX], (0..1000).collect::<SmallVec<_>>()];
        strings: SmallVec<[String; 1]> = [smallvec![], smallvec!["ß".to_owned()], smallvec![String::new(); 3]];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Dated {
    #[serde(with = "time::serde::rfc3339")]
    at: time::OffsetDateTime,
    #[serde(with = "time::serde::timestamp::option")]
    until: Option<time::OffsetDateTime>,
}

fn time_arrives_unchanged(method: StartMethod) {
    use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset, Weekday};
    let pool = pool(method);
    let offset = UtcOffset::from_hms(-11, -30, -59).unwrap();
    let last = OffsetDateTime::new_in_offset(Date::MAX, Time::MAX, offset);
    let first = OffsetDateTime::new_utc(Date::MIN, Time::MIDNIGHT);
    let dated = Dated { at: OffsetDateTime::UNIX_EPOCH - Duration::nanoseconds(1), until: None };
    travels! { &pool;
        offset_date_time: OffsetDateTime = [OffsetDateTime::UNIX_EPOCH, last, first], |one, other| {
            one == other && one.offset() == other.offset()
        };
        primitive_date_time: PrimitiveDateTime = [PrimitiveDateTime::MIN, PrimitiveDateTime::MAX];
        date: Date = [Date::MIN, Date::MAX];
        time: Time = [Time::MIDNIGHT, Time::MAX];
        utc_offset: UtcOffset = [UtcOffset::UTC, offset];
        duration: Duration = [Duration::ZERO, Duration::nanoseconds(-1), Duration::MIN, Duration::MAX];
        weekday: Weekday = [Weekday::Monday, Weekday::Sunday];
        month: Month = [Month::January, Month::December];
        dated: Dated = [dated.clone(), Dated { until: Some(OffsetDateTime::UNIX_EPOCH), ..dated }];
    }
}

fn toml_arrives_unchanged(method: StartMethod) {
    use toml::value::Datetime;
    use toml::{Table, Value};
    let text = r#"
        none = []
        numbers = [0, -9223372036854775808, 9223372036854775807]
        floats = [-0.0, inf, 1e-300]
        "größer" = { "" = "ß", at = 1979-05-27T00:32:00.999999-07:00, day = 1979-05-27, time = 07:32:00 }
        [[list]]
        yes = true
    "#;
    let table: Table = text.parse().unwrap();
    let days = ["1979-05-27T07:32:00Z", "1979-05-27", "23:59:60.5"].map(|day| day.parse::<Datetime>().unwrap());
    travels! { &pool(method);
        value: Value = [Value::Integer(0), Value::Datetime(days[0]), Value::Table(table.clone())], |one, other| {
            one == other && one.to_string() == other.to_string()
        };
        table: Table = [Table::new(), table];
        datetime: Datetime = days;
    }
}

fn url_arrives_unchanged(method: StartMethod) {
    use url::{Host, Url};
    let pool = pool(method);
    let urls = ["data:,", "https://user:pa%20ss@[::1]:8080/ä b/../c?q=%FF&r#größer", "file:///a%FF", "mailto:a@b.c"];
    let hosts = ["a.example", "127.0.0.1", "[fe80::1]"].map(|host| Host::parse(host).unwrap());
    travels! { &pool;
        url: Url = urls.map(|url| Url::parse(url).unwrap());
        host: Host<String> = hosts;
    }
}

fn uuid_arrives_unchanged(method: StartMethod) {
    use uuid::Uuid;
    let some = Uuid::from_u128(0x0123_4567_89AB_CDEF_0011_2233_4455_6677);
    travels! { &pool(method);
        uuid: Uuid = [Uuid::nil(), Uuid::max(), some];
    }
}
