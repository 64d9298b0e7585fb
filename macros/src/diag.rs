//! What the macros say when they refuse: all mistakes of one item at once, each on the token that made it.
//!
//! Owns: the form of a message. Never: finds a mistake itself, or hides the item that has one.
//! Runs in: the compiler.

use proc_macro2::TokenStream;
use quote::ToTokens;

/// The mistakes found so far.
#[derive(Default)]
pub(crate) struct Mistakes(Option<syn::Error>);

impl Mistakes {
    /// Notes that a task cannot `what`, because `why`, and that the user should do `instead`.
    pub(crate) fn cannot(&mut self, at: impl ToTokens, what: &str, why: &str, instead: &str) {
        self.add(syn::Error::new_spanned(at, cannot("process task", what, why, instead)));
    }

    /// Notes any other mistake.
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    /// Notes the mistake in `result`, if it is one.
    pub(crate) fn check<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// `value`, unless there were mistakes.
    pub(crate) fn none_or<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

/// The sentence for an item (`kind`) that cannot do `what`.
pub(crate) fn cannot(kind: &str, what: &str, why: &str, instead: &str) -> String {
    format!("a {kind} cannot {what}: {why}; {instead}")
}

/// The item as it was, so that its users see no errors of their own, and the mistakes.
pub(crate) fn keep_item(item: &TokenStream, errors: &syn::Error) -> TokenStream {
    let errors = errors.to_compile_error();
    quote::quote! { #item #errors }
}
