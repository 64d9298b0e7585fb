//! Parses a function that prepares the fork server, and refuses what could not be called there.
//!
//! ```text
//! preload = { attribute } [ visibility ] "fn" name "(" ")" block
//! ```
//!
//! Owns: this grammar. All errors are reported at once. Runs in: the compiler.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Error, Path, ReturnType, Safety};

use crate::attributes::Attributes;
use crate::diag::{Errors, Subject, cannot};
use crate::options::{AcceptedOptions, AttributeOptions};
use crate::task::FunctionItem;

/// A function that can run in the fork server, ahead of all tasks.
pub(crate) struct PreloadFn {
    pub(crate) krate: Path,
    pub(crate) attributes: Attributes,
    pub(crate) function: FunctionItem,
    /// The function as it was written.
    pub(crate) item: TokenStream,
}

impl PreloadFn {
    /// Reads the attribute's `args` and its `item`, and reports everything that is wrong with either.
    pub(crate) fn check(args: TokenStream, item: &TokenStream) -> syn::Result<Self> {
        let mut errors = Errors::of(Subject::TASK);
        let krate = AttributeOptions::read(args, AcceptedOptions::CrateOnly, &mut errors).krate;
        let Some(function) = errors.check(FunctionItem::read(item, "preload function")) else {
            return errors.none_or(()).and(Err(Error::new(Span::call_site(), "not a function")));
        };
        let signature = &function.signature;
        let mut refuse = |at: Option<&dyn ToTokens>, what: &str, why: &str, instead: &str| {
            if let Some(at) = at {
                errors.add(Error::new_spanned(at, cannot("preload function", what, why, instead)));
            }
        };
        let caller = "the fork server calls it, before any task";
        refuse(
            signature.asyncness.as_ref().map(|it| it as _),
            "be async",
            "the fork server has no executor",
            "block inside",
        );
        refuse(
            matches!(signature.safety, Safety::Unsafe(_)).then_some(&signature.safety as _),
            "be unsafe",
            caller,
            "make it a safe fn with an unsafe block inside",
        );
        refuse(
            signature.abi.as_ref().map(|it| it as _),
            "be extern",
            caller,
            "make it a plain fn that calls the extern one",
        );
        let generics = (!signature.generics.params.is_empty()).then_some(&signature.generics.params);
        refuse(generics.map(|it| it as _), "be generic", caller, "remove the parameters");
        let inputs = (!signature.inputs.is_empty()).then_some(&signature.inputs);
        refuse(inputs.map(|it| it as _), "have parameters", caller, "keep what it needs in a static");
        if let ReturnType::Type(_, ty) = &signature.output {
            refuse(Some(ty), "return anything", caller, "keep what it made in a static");
        }
        let attributes = Attributes::sort(&function.attributes);
        errors.none_or(Self { krate, attributes, function, item: item.clone() })
    }
}
