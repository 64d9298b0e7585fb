//! Names that macros of other crates bind, and that a task should not have.
//!
//! A task is a constant, and a pattern compares with a constant of its name instead of binding it. The variables of another
//! crate's macro are patterns, too: after `#[process_task] fn error(…)`, an `anyhow!` in the same module does not compile,
//! and the compiler does not say why.
//!
//! A macro cannot warn. But it can write an item that is deprecated, and use it where the user wrote the name.
//!
//! Owns: the list of names. They cause a warning, not an error. Runs in: the compiler.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::Attribute;
use syn::ext::IdentExt as _;
use syn::parse::Parser as _;

use crate::task::at_call_site;

/// Macros, and names that they bind.
const BOUND: &[(&str, &[&str])] = &[
    ("`assert_eq!` of std", &["kind", "left_val", "right_val"]),
    ("`dbg!` of std", &["tmp"]),
    ("`anyhow!` and eyre's `bail!`", &["error"]),
    ("`ensure!` of anyhow", &["lhs", "rhs"]),
    ("`assert_matches!`", &["e"]),
    ("`bitflags!`", &["bits", "f", "flags", "i", "item", "name", "other", "result", "s", "value"]),
    ("macros of clap", &["v"]),
    ("`select!` of futures", &["x"]),
    ("`indexmap!`", &["map"]),
    ("macros of itertools", &["a", "b", "iter"]),
    ("macros of log", &["lvl"]),
    ("`json!` of serde_json", &["object"]),
    ("`select!` of tokio", &["branch", "fut", "futures", "mask", "out", "output", "start", "t"]),
    ("macros of tracing", &["enabled", "interest", "meta", "span"]),
];

/// Returns the body of a task, with a warning if the task's name is one of those. The warning is the lint `deprecated`, which an
/// attribute of the function can silence.
pub(crate) fn warn(name: &Ident, body: &TokenStream) -> TokenStream {
    let plain = name.unraw().to_string();
    let Some((macros, _)) = BOUND.iter().find(|(_, names)| names.contains(&plain.as_str())) else {
        return body.clone();
    };
    let note = format!(
        "a task is a constant, and where one called `{plain}` is in scope, these do not compile: {macros}; rename the \
         task, or write `#[expect(deprecated)]` below the attribute if that is no problem"
    );
    let name = at_call_site(name);
    let warning = quote_spanned! { name.span()=>
        const _: () = {
            #[deprecated(note = #note)]
            const __NAME_OF_A_TASK: () = ();
            __NAME_OF_A_TASK
        };
    };
    body.clone().into_iter().map(|tree| begin_with(&warning, tree)).collect()
}

/// Returns the block `tree` with `first` at its start, after attributes of the block itself.
fn begin_with(first: &TokenStream, tree: TokenTree) -> TokenStream {
    let TokenTree::Group(block) = &tree else { return tree.into() };
    if block.delimiter() != Delimiter::Brace {
        return tree.into();
    }
    let split =
        |input: syn::parse::ParseStream<'_>| Ok((Attribute::parse_inner(input)?, input.parse::<TokenStream>()?));
    let Ok((attributes, rest)) = split.parse2(block.stream()) else { return tree.into() };
    let mut longer = Group::new(Delimiter::Brace, quote!(#(#attributes)* #first #rest));
    longer.set_span(block.span());
    longer.into_token_stream()
}
