//! What the compiler says of each mistake: one file in `ui/` for each, named after it. Good code is in `accepted/`: with
//! one program that is to be linked, trybuild would compile the library to machine code, not only check it.

#[test]
fn mistakes_are_reported_in_place() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
