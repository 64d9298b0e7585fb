//! Reads a type that derives `Shareable`, refuses what cannot live in shared memory, and writes the rest's impl.
//!
//! ```text
//! type = { attribute } [ visibility ] ( struct | enum-without-fields )       #[shareable(crate = path)]
//! ```
//!
//! For `#[derive(Shareable)] struct Cell<T> { value: T, count: AtomicU64 }` it writes:
//!
//! ```text
//! #[automatically_derived]
//! unsafe impl<T: Shareable> Shareable for Cell<T> {
//!     const FROZEN: bool = {
//!         assert!(!needs_drop::<Self>());
//!         <T as Shareable>::FROZEN & <AtomicU64 as Shareable>::FROZEN
//!     };
//! }
//! ```
//!
//! Each field's type is checked at its own place in the source, so that the error points at the field. An enum gets a
//! check that it is one byte, and a type without parameters one that does not wait for its first use.
//!
//! Owns: this grammar, and the shape of this code. All errors are reported at once. The code names only what
//! `process_task` exports, or what the user wrote. Runs in: the compiler.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Fields, GenericParam, Generics, Meta, Path, Token, Type, parse_quote,
};

use crate::diag::{Errors, Subject, cannot};
use crate::options::{AcceptedOptions, AttributeOptions};

/// A type that may live in shared memory if its fields may.
pub(crate) struct ShareableItem {
    item: DeriveInput,
    krate: Path,
}

impl ShareableItem {
    /// Reads `item`, and reports everything that is wrong with it.
    pub(crate) fn check(item: TokenStream) -> syn::Result<Self> {
        let item: DeriveInput = syn::parse2(item)?;
        let mut errors = Errors::of(Subject::TASK);
        let krate =
            AttributeOptions::read(options(&item.attrs, &mut errors), AcceptedOptions::CrateOnly, &mut errors).krate;
        refuse_lifetimes(&item.generics, &mut errors);
        match &item.data {
            Data::Struct(_) => {}
            Data::Enum(data) => check_enum(&item, data, &mut errors),
            Data::Union(data) => refuse(
                &mut errors,
                data.union_token,
                "be a union",
                "no process could tell which of its fields is there",
                "make it a struct",
            ),
        }
        errors.none_or(Self { item, krate })
    }

    /// The impl.
    pub(crate) fn expand(&self) -> TokenStream {
        let Self { item, krate } = self;
        let trait_name = quote!(#krate::Shareable);
        let name = crate::task::at_call_site(&item.ident);
        let mut generics = item.generics.clone();
        for param in &mut generics.params {
            if let GenericParam::Type(param) = param {
                param.bounds.push(parse_quote!(#trait_name));
            }
        }
        let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
        let frozen = fields(&item.data).map(|ty| {
            let span = ty.span().resolved_at(Span::call_site());
            quote_spanned!(span=> & <#ty as #trait_name>::FROZEN)
        });
        let no_destructor = format!("`{name}` has a destructor, so it cannot live in shared memory");
        let one_byte = matches!(item.data, Data::Enum(_)).then(|| {
            let message = format!("`{name}` is more than one byte, so it cannot live in shared memory");
            quote!(::core::assert!(::core::mem::size_of::<Self>() == 1, #message);)
        });
        let now = generics.params.is_empty().then(|| {
            let span = name.span();
            quote_spanned!(span=> const _: bool = <#name as #trait_name>::FROZEN;)
        });
        quote! {
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            unsafe impl #impl_generics #trait_name for #name #type_generics #where_clause {
                const FROZEN: bool = {
                    ::core::assert!(!::core::mem::needs_drop::<Self>(), #no_destructor);
                    #one_byte
                    true #(#frozen)*
                };
            }
            #now
        }
    }
}

/// The types of all fields.
fn fields(data: &Data) -> impl Iterator<Item = &Type> {
    let fields = if let Data::Struct(data) = data { Some(&data.fields) } else { None };
    fields.into_iter().flat_map(Fields::iter).map(|field| &field.ty)
}

/// What stands in `#[shareable(…)]`.
fn options(attributes: &[Attribute], errors: &mut Errors) -> TokenStream {
    let mut options = TokenStream::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("shareable")) {
        if let Some(list) = errors.check(attribute.meta.require_list()) {
            options.extend(list.tokens.clone());
            options.extend(<Token![,]>::default().into_token_stream());
        }
    }
    options
}

fn refuse_lifetimes(generics: &Generics, errors: &mut Errors) {
    for param in generics.lifetimes() {
        let why = "what is borrowed lies in the memory of one process";
        refuse(errors, param, "borrow", why, "let it own what it needs");
    }
}

fn check_enum(item: &DeriveInput, data: &DataEnum, errors: &mut Errors) {
    if data.variants.is_empty() {
        refuse(errors, &item.ident, "be an enum without variants", "there is no value of it", "add one");
        return;
    }
    let mut fields = data.variants.iter().map(|variant| &variant.fields).filter(|fields| !fields.is_empty()).peekable();
    if fields.peek().is_none() {
        check_repr(item, errors);
    }
    for fields in fields {
        refuse(
            errors,
            fields,
            "be an enum with fields",
            "a process may be killed when half of a value is written, and the half may be no value",
            "make it a struct, with an enum without fields to say what is in it",
        );
    }
}

/// An enum must say that it is one byte.
fn check_repr(item: &DeriveInput, errors: &mut Errors) {
    let mut one_byte = false;
    for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        if let Meta::List(list) = &attribute.meta {
            let words = list.tokens.clone().into_iter().map(|token| token.to_string());
            one_byte |= words.into_iter().any(|word| word == "u8" || word == "i8");
        }
    }
    if !one_byte {
        refuse(
            errors,
            &item.ident,
            "be an enum of more than one byte",
            "a process may be killed when half of a value is written, and the half may be no value",
            "write `#[repr(u8)]` above it",
        );
    }
}

fn refuse(errors: &mut Errors, at: impl ToTokens, what: &str, why: &str, instead: &str) {
    errors.add(Error::new_spanned(at, cannot("shareable type", what, why, instead)));
}
