//! Where the attributes of the user's function go, now that it becomes several items.
//!
//! | attribute | goes to |
//! |---|---|
//! | `#[cfg]` | every item |
//! | docs, `#[deprecated]` | the constant that users see |
//! | `#[allow]` | both the constant and the function |
//! | everything else: `#[inline]`, `#[must_use]`, other lint levels, other macros | the function |
//!
//! `#[cfg_attr(…, a, b)]` goes where `a` and `b` would go.
//!
//! Owns: this table. Never: changes what an attribute says. Runs in: the compiler.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, Token};

/// The attributes, sorted.
#[derive(Default)]
pub(crate) struct Attributes {
    /// For every item.
    pub(crate) everywhere: Vec<TokenStream>,
    /// For the constant.
    pub(crate) on_value: Vec<TokenStream>,
    /// For the function.
    pub(crate) on_function: Vec<TokenStream>,
    /// Whether there is any documentation.
    pub(crate) documented: bool,
    /// Whether the task is deprecated. If so, its own body may name it all the same.
    pub(crate) deprecated: bool,
}

impl Attributes {
    /// Sorts `attributes`.
    pub(crate) fn sort(attributes: &[Attribute]) -> Self {
        let mut sorted = Self::default();
        for attribute in attributes {
            sorted.place(&attribute.meta, &|meta| {
                let mut attribute = attribute.clone();
                attribute.meta = meta.clone();
                attribute.into_token_stream()
            });
        }
        sorted
    }

    /// Puts `meta` where it belongs, as the attribute that `wrap` makes of it.
    fn place(&mut self, meta: &Meta, wrap: &dyn Fn(&Meta) -> TokenStream) {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match name.as_str() {
            "cfg" => self.everywhere.push(wrap(meta)),
            "cfg_attr" => self.place_conditional(meta, wrap),
            "doc" => {
                self.documented |= matches!(meta, Meta::NameValue(_));
                self.on_value.push(wrap(meta));
            }
            "deprecated" => {
                self.deprecated = true;
                self.on_value.push(wrap(meta));
            }
            "allow" => {
                self.on_value.push(wrap(meta));
                self.on_function.push(wrap(meta));
            }
            _ => self.on_function.push(wrap(meta)),
        }
    }

    /// Puts each attribute inside a `cfg_attr` where it belongs.
    fn place_conditional(&mut self, meta: &Meta, wrap: &dyn Fn(&Meta) -> TokenStream) {
        let parsed =
            meta.require_list().and_then(|list| list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated));
        let Ok(parts) = parsed else {
            // rustc has the right words for this one.
            self.on_function.push(wrap(meta));
            return;
        };
        let mut parts = parts.iter();
        let condition = parts.next();
        for part in parts {
            self.place(part, &|part| {
                let path = meta.path();
                wrap(&syn::parse_quote!(#path(#condition, #part)))
            });
        }
    }

    /// What the function gets besides its own attributes.
    pub(crate) fn extra_on_function(&self) -> TokenStream {
        if self.deprecated { quote!(#[allow(deprecated)]) } else { TokenStream::new() }
    }
}
