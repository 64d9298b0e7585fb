//! Reads the types in a task's signature: which lifetimes they have, and which forms cannot cross to another process.
//!
//! Owns: the one lifetime that stands for all of a call's references. Never: knows what a named type is; that is
//! settled by trait bounds in the code that [`expand`](crate::expand) writes.
//! Runs in: the compiler.

use proc_macro2::Span;
use syn::visit_mut::{self, VisitMut};
use syn::{GenericParam, Generics, Lifetime, ReturnType, Type};

use crate::diag::Errors;

/// The lifetime of a call's references.
pub(crate) fn args_lifetime() -> Lifetime {
    Lifetime::new("'__process_task_args", Span::call_site())
}

/// `ty`, with [`args_lifetime`] for every lifetime that belongs to the function: elided, `'_`, or declared by it.
pub(crate) fn parameter(ty: &Type, generics: &Generics, errors: &mut Errors) -> Type {
    let mut ty = ty.clone();
    ParameterVisitor { generics, errors }.visit_type_mut(&mut ty);
    ty
}

/// Returns the type of the result, `()` if none is written.
pub(crate) fn output(output: &ReturnType, errors: &mut Errors) -> Type {
    let ReturnType::Type(_, ty) = output else { return syn::parse_quote!(()) };
    OutputVisitor { errors }.visit_type_mut(&mut ty.as_ref().clone());
    ty.as_ref().clone()
}

fn refuse_impl_trait(ty: &syn::TypeImplTrait, errors: &mut Errors) {
    let why = format!("{} must know the exact type of what it is sent and sends back", errors.subject.host);
    errors.cannot(ty, "use `impl Trait`", &why, "write that type");
}

/// Returns whether no function can have `ty` in its signature: it has no size, or is inferred. The compiler reports that best.
pub(crate) fn is_wrong_in_any_function(ty: &Type) -> bool {
    struct Infer(bool);
    impl VisitMut for Infer {
        fn visit_type_infer_mut(&mut self, _: &mut syn::TypeInfer) {
            self.0 = true;
        }
    }
    let mut infer = Infer(false);
    infer.visit_type_mut(&mut ty.clone());
    infer.0 || is_unsized(ty)
}

fn is_unsized(ty: &Type) -> bool {
    match ty {
        Type::Group(group) => is_unsized(&group.elem),
        Type::Path(path) => path.path.is_ident("str"),
        Type::Slice(_) | Type::TraitObject(_) => true,
        _ => false,
    }
}

struct ParameterVisitor<'m> {
    generics: &'m Generics,
    errors: &'m mut Errors,
}

impl VisitMut for ParameterVisitor<'_> {
    fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
        if let Some(mutability) = reference.mutability {
            let why = format!("{} changes a copy of its own, which the caller never sees", self.errors.subject.host);
            self.errors.cannot(mutability, "take `&mut`", &why, "take the value and return the changed one");
        }
        if let Some(lifetime) = &reference.lifetime
            && lifetime.ident == "static"
        {
            let why = format!("in {}, arguments live no longer than the call", self.errors.subject.host);
            let instead = "leave the lifetime out, or take an owned value";
            self.errors.cannot(lifetime, "take `'static` references", &why, instead);
        }
        reference.lifetime.get_or_insert_with(|| Lifetime::new("'_", Span::call_site()));
        visit_mut::visit_type_reference_mut(self, reference);
    }

    /// `'static` inside another type is left as it is: a `Cow<'static, str>` is read as what it owns.
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        let of_the_function =
            |param: &GenericParam| matches!(param, GenericParam::Lifetime(it) if it.lifetime == *lifetime);
        if lifetime.ident == "_" || self.generics.params.iter().any(of_the_function) {
            *lifetime = args_lifetime();
        }
    }

    fn visit_type_impl_trait_mut(&mut self, ty: &mut syn::TypeImplTrait) {
        refuse_impl_trait(ty, self.errors);
    }

    // The lifetimes in these are their own, not the function's.
    fn visit_type_fn_ptr_mut(&mut self, _: &mut syn::TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut syn::ParenthesizedGenericArguments) {}
}

struct OutputVisitor<'m> {
    errors: &'m mut Errors,
}

impl OutputVisitor<'_> {
    fn refuse_borrow(&mut self, at: impl quote::ToTokens) {
        let why = format!("what it borrows from stays behind in {}", self.errors.subject.host);
        self.errors.cannot(at, "return a borrowed value", &why, "return an owned one");
    }
}

impl VisitMut for OutputVisitor<'_> {
    fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
        match &reference.lifetime {
            Some(lifetime) if lifetime.ident == "static" => {
                let host = self.errors.subject.host;
                let why =
                    format!("what they point to is in {host}'s memory, and the result is read in another process");
                self.errors.cannot(lifetime, "return `'static` references", &why, "return an owned value");
            }
            Some(lifetime) => self.refuse_borrow(lifetime),
            None => self.refuse_borrow(reference.and_token),
        }
        self.visit_type_mut(&mut reference.elem);
    }

    /// `'static` inside another type is fine: a `Cow<'static, str>` is read as what it owns.
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            self.refuse_borrow(&*lifetime);
        }
    }

    fn visit_type_impl_trait_mut(&mut self, ty: &mut syn::TypeImplTrait) {
        refuse_impl_trait(ty, self.errors);
    }

    fn visit_type_never_mut(&mut self, ty: &mut syn::TypeNever) {
        self.errors.cannot(&*ty, "return `!`", "its caller waits for a result", "return `()`");
    }

    fn visit_type_fn_ptr_mut(&mut self, _: &mut syn::TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut syn::ParenthesizedGenericArguments) {}
}
