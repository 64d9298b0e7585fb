//! Tasks whose names other macros bind: a warning, which is an error here, and two ways to say that it is meant.
#![deny(warnings)]

mod warned {
    #[process_task::process_task]
    pub fn error(x: u8) -> u8 {
        #![allow(unused_variables)]
        x
    }

    macro_rules! tasks {
        ($($name:ident)*) => { $(
            #[process_task::process_task]
            pub fn $name(x: u8) -> u8 {
                x
            }
        )* };
    }
    tasks! { kind plain }
}

mod silent {
    #[process_task::process_task]
    #[expect(deprecated, reason = "there are no macros here")]
    pub fn value(x: u8) -> u8 {
        x
    }

    #[process_task::process_task]
    #[allow(deprecated)]
    pub fn r#map(x: u8) -> u8 {
        x
    }
}

#[allow(deprecated)]
mod silent_as_a_whole {
    #[process_task::process_task]
    pub fn output(x: u8) -> u8 {
        x
    }
}

fn main() {
    warned::error(warned::kind(warned::plain(1)));
    silent::value(silent::map(silent_as_a_whole::output(1)));
}
