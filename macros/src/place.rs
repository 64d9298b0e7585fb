//! Finds out whether a function is in an `impl` block, which its tokens do not say.
//!
//! A task becomes several items, and a block can hold no struct. The compiler reports that in five messages about code that
//! is not in the source. So the attribute looks into the source file, but only if it does not stand at the left margin.
//!
//! Owns: this search. A function is refused only if it was found, word for word, in a block. Runs in: the compiler.

use std::fs;

use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, ImplItemFn, ItemFn, Signature, TraitItemFn};

/// Returns whether the function with this signature, whose attribute is being expanded, is in an `impl` or a trait.
pub(crate) fn is_in_a_block(signature: &Signature) -> bool {
    let attribute = proc_macro::Span::call_site();
    if attribute.column() <= 1 {
        return false;
    }
    let text = attribute.local_file().and_then(|file| fs::read_to_string(file).ok());
    let (Some(text), Some(attribute)) = (text, attribute.source_text()) else { return false };
    let Ok(mut file) = syn::parse_file(&text) else { return false };
    let attribute = attribute.split_whitespace().collect();
    let mut search = Search { attribute, signature: bare(signature), in_block: false, outside: false };
    search.visit_file_mut(&mut file);
    search.in_block && !search.outside
}

/// Returns the tokens of `item` without white space, which differs between two ways of parsing it.
fn bare(item: &impl ToTokens) -> String {
    item.to_token_stream().to_string().split_whitespace().collect()
}

struct Search {
    attribute: String,
    signature: String,
    in_block: bool,
    outside: bool,
}

impl Search {
    fn finds(&self, attributes: &[Attribute], signature: &Signature) -> bool {
        bare(signature) == self.signature && attributes.iter().any(|attribute| bare(attribute) == self.attribute)
    }
}

impl VisitMut for Search {
    fn visit_impl_item_fn_mut(&mut self, item: &mut ImplItemFn) {
        self.in_block |= self.finds(&item.attrs, &item.sig);
        visit_mut::visit_impl_item_fn_mut(self, item);
    }

    fn visit_trait_item_fn_mut(&mut self, item: &mut TraitItemFn) {
        self.in_block |= self.finds(&item.attrs, &item.sig);
        visit_mut::visit_trait_item_fn_mut(self, item);
    }

    fn visit_item_fn_mut(&mut self, item: &mut ItemFn) {
        self.outside |= self.finds(&item.attrs, &item.sig);
        visit_mut::visit_item_fn_mut(self, item);
    }
}
