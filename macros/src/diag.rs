//! The errors that a macro reports: all of one item at once, each on the token that caused it.
//!
//! Owns: the form of a message. Invariant: an item with an error is still emitted. Runs in: the compiler.

use proc_macro2::TokenStream;
use quote::ToTokens;

/// What an item with errors would become.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    /// What it is called.
    kind: &'static str,
    /// The process in which it runs.
    pub(crate) host: &'static str,
}

impl Subject {
    /// A function.
    pub(crate) const TASK: Self = Self { kind: "process task", host: "the child" };
    /// An `impl` block.
    pub(crate) const OBJECT: Self = Self { kind: "process object", host: "the manager" };
    /// A function of such a block.
    pub(crate) const METHOD: Self = Self { kind: "method of a process object", host: "the manager" };
}

/// The errors found so far.
pub(crate) struct Errors {
    pub(crate) subject: Subject,
    found: Option<syn::Error>,
}

impl Errors {
    /// No errors of a `subject`.
    pub(crate) const fn of(subject: Subject) -> Self {
        Self { subject, found: None }
    }

    /// Adds the error that the subject cannot `what`, because `why`, and that the user should do `instead`.
    pub(crate) fn cannot(&mut self, at: impl ToTokens, what: &str, why: &str, instead: &str) {
        self.add(syn::Error::new_spanned(at, cannot(self.subject.kind, what, why, instead)));
    }

    /// Adds any other error.
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.found {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    /// Adds the error of `result`, if there is one.
    pub(crate) fn check<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// Returns `value`, unless there were errors.
    pub(crate) fn none_or<T>(self, value: T) -> syn::Result<T> {
        self.found.map_or(Ok(value), Err)
    }
}

/// Returns the sentence for an item (`kind`) that cannot do `what`.
pub(crate) fn cannot(kind: &str, what: &str, why: &str, instead: &str) -> String {
    format!("a {kind} cannot {what}: {why}; {instead}")
}

/// Returns the item as it was, so that its users get no errors of their own, and the errors.
pub(crate) fn keep_item(item: &TokenStream, errors: &syn::Error) -> TokenStream {
    let errors = errors.to_compile_error();
    quote::quote! { #item #errors }
}
