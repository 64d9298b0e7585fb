//! What the compiler says of each mistake: one file in `ui/` for each, named after it. Those named `pass_…` compile, in
//! silence, under the strictest lints.

#[test]
fn mistakes_are_reported_in_place_and_good_code_compiles() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/[!p]*.rs");
    cases.compile_fail("tests/ui/preload_*.rs");
    cases.pass("tests/ui/pass_*.rs");
}
