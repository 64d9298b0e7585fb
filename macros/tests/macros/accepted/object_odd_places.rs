//! Objects where names mean something else, in function bodies, in modules, in macros, and under another crate's name.
#![deny(warnings)]
#![expect(clippy::needless_arbitrary_self_type, clippy::unused_self, reason = "odd code is what is tested")]
#![expect(clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "odd code is what is tested")]
#![expect(clippy::extra_unused_type_parameters, reason = "odd code is what is tested")]
#![expect(unreachable_pub, reason = "a program need not care, and this was written as one")]

mod bare {
    //! No prelude, and names of the standard library that are something else.
    #![no_implicit_prelude]

    /// Not the usual one.
    #[expect(dead_code, reason = "it is only in the way")]
    pub(crate) enum Result {
        Ok,
        Err,
    }

    pub(crate) mod std {}

    pub(crate) mod core {}

    #[expect(dead_code, reason = "it is only in the way")]
    pub(crate) struct Proxy;

    pub(crate) struct Bare(::std::string::String);

    #[::process_task::process_object]
    impl Bare {
        pub(crate) fn new(text: &str) -> ::std::result::Result<Self, ::std::string::String> {
            ::std::result::Result::Ok(Self(::std::string::ToString::to_string(text)))
        }

        pub(crate) fn len(&self, more: ::std::vec::Vec<u8>) -> ::std::result::Result<usize, ::std::string::String> {
            ::std::result::Result::Ok(self.0.len() + more.len())
        }
    }
}

mod one {
    pub struct Same(u8);

    #[process_task::process_object]
    impl Same {
        pub fn new() -> Self {
            Self(1)
        }
        pub(super) fn which(self: &Self) -> u8 {
            self.0
        }
        /// A name that is a keyword, and names that generated code might use.
        pub fn r#match(self: &mut Self, r#type: u8, manager: u8, args: u8, hidden: u8, proxy: u8) -> u8 {
            self.0 + r#type + manager + args + hidden + proxy
        }
        pub fn clone(&self) -> u8 {
            self.0
        }
        pub fn call(&self) -> u8 {
            self.0
        }
        pub fn create(&self, in_manager: u8) -> u8 {
            self.0 + in_manager
        }
    }
}

mod two {
    /// Private, but its methods are not.
    struct Same(u8);

    #[process_task::process_object]
    impl Same {
        pub fn new(manager: u8, in_manager: u8) -> Same {
            Self(manager + in_manager)
        }
        pub fn which(&self) -> u8 {
            self.0
        }
    }

    pub(super) fn start(manager: &process_task::ManagerHandle) -> process_task::Result<u8> {
        SameProxy::new(manager, 1, 1)?.which()
    }
}

mod store {
    pub trait Size {
        const FACTOR: usize;
        type Unit;
        fn size(&self, unit: Self::Unit) -> Self::Unit;
        fn made_of(units: [usize; 3]) -> Self;
        fn r#as(&mut self, list: Vec<Self::Unit>) -> Option<<Self as Size>::Unit>;
    }

    // In another module than the type: by path, or with the proxy imported.
    #[process_task::process_object]
    impl Size for super::grid::Grid<3> {
        const FACTOR: usize = 3;
        type Unit = usize;

        fn size(&self, unit: Self::Unit) -> Self::Unit {
            unit * self.side() * Self::FACTOR
        }
        fn made_of(units: [usize; 3]) -> Self {
            let [..] = units;
            Self::sized()
        }
        fn r#as(&mut self, list: Vec<Self::Unit>) -> Option<<Self as Size>::Unit> {
            list.first().copied()
        }
    }
}

mod grid {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Grid<const N: usize>(usize);

    #[process_task::process_object]
    impl Grid<3> {
        const SIDE: usize = 3;

        pub(crate) fn sized() -> Grid<3> {
            Self(Self::SIDE)
        }
        pub(crate) fn side(&self) -> usize {
            self.0
        }
        pub(crate) fn row(&self, from: [usize; Self::SIDE]) -> [usize; Self::SIDE] {
            from
        }
        pub(crate) fn merged(&self, other: &Self, more: Vec<Self>) -> Self {
            Self(self.0 + other.0 + more.len())
        }
    }
}

mod facade {
    pub(crate) mod deep {
        pub(crate) use process_task as engine;
    }

    macro_rules! object {
        ($(#[$attribute:meta])* $vis:vis $name:ident, $field:ty, $method:ident -> $R:ty { $body:expr }) => {
            $vis struct $name($field);

            #[$crate::accepted::object_odd_places::facade::deep::engine::process_object(crate = $crate::accepted::object_odd_places::facade::deep::engine)]
            impl $name {
                pub(crate) fn new(field: $field) -> $name {
                    $name(field)
                }
                $(#[$attribute])*
                $vis fn $method(&self, of: $field) -> $R {
                    let _ = (&self.0, of);
                    $body
                }
            }
        };
    }
    pub(crate) use object;
}

mod through {
    use super::facade;

    facade::object! {
        /// Through a macro.
        pub(crate) Through, u64, method -> u8 { u8::from(true) + 8 }
    }
}

fn generic<T>(manager: &process_task::ManagerHandle) -> process_task::Result<u8> {
    struct Inside(u8);

    #[process_task::process_object]
    impl Inside {
        pub fn new(value: u8) -> Self {
            Self(value)
        }
        pub fn get(&self) -> u8 {
            self.0
        }
    }
    InsideProxy::new(manager, 4)?.get()
}

#[cfg(windows)]
#[process_task::process_object]
impl NoSuchType {
    pub fn new() -> Self {}
}

mod conditional {
    pub struct Conditional;

    #[process_task::process_object]
    #[cfg(windows)]
    impl Conditional {
        pub fn new() -> Self {
            Self
        }
    }
    #[process_task::process_object]
    #[cfg(not(windows))]
    impl Conditional {
        #[cfg(windows)]
        pub fn only(&self) -> NoSuchType {}
        #[cfg(not(windows))]
        pub fn only(&self) -> u8 {
            7
        }
    }
}

#[expect(dead_code, reason = "nothing runs here")]
fn types(manager: &process_task::ManagerHandle) -> process_task::Result<()> {
    let bare: Result<bare::BareProxy, String> = bare::BareProxy::new(manager, "abc")?;
    let _: Option<Result<usize, String>> = bare.ok().map(|bare| bare.len(vec![1])).transpose()?;
    let one: one::SameProxy = one::SameProxy::new(manager)?;
    let _: u8 =
        one.which()? + one.r#match(1, 2, 3, 4, 5)? + one.later().call().join()? + one.create(1)? + two::start(manager)?;
    let _: u8 = one::SameProxy::clone(&one)?;
    let _: one::SameProxy = Clone::clone(&one);
    let grid: grid::GridProxy = grid::GridProxy::sized(manager)?;
    let _: grid::GridProxy = grid::GridProxy::made_of(manager, [1, 2, 3])?;
    let _: grid::Grid<3> = grid.merged(&grid::Grid::sized(), vec![grid::Grid::sized()])?;
    let _: [usize; 3] = grid.row([1, 2, 3])?;
    let _: usize = grid.size(3)? + grid.later().r#as(vec![1]).join()?.unwrap_or(0);
    let _: u8 = through::ThroughProxy::new(manager, 3)?.method(2)?;
    let _: fn(&conditional::ConditionalProxy) -> process_task::Result<u8> = conditional::ConditionalProxy::only;
    generic::<String>(manager).map(drop)
}

pub(super) fn main() {}
