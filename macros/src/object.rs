//! Parses an `impl` block of a process object, and refuses what cannot be called from another process.
//!
//! ```text
//! block       = { attribute } "impl" [ trait "for" ] type "{" { item } "}"
//! constructor = visibility "fn" name "(" parameters ")" "->" ( "Self" | "Result<Self, E>" ) block
//! method      = visibility "fn" name "(" ( "&self" | "&mut self" ) parameters ")" [ "->" type ] block
//! ```
//!
//! Functions without a visibility, and those with `#[local]`, are not looked at. The methods of a trait have none: there, all
//! others are methods of the proxy.
//!
//! Owns: the list of refused forms, in the order of the source. All errors are reported at once. Runs in: the compiler.

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, Expr, GenericArgument, ImplItem, ImplItemFn, Item, ItemImpl, Lifetime, Path, PathArguments,
    ReceiverKind, ReturnType, Signature, Type, TypePath, Visibility,
};

use crate::attributes::Attributes;
use crate::diag::{Errors, Subject, cannot, keep_item};
use crate::options::{AcceptedOptions, AttributeOptions};
use crate::signature;
use crate::task::{self, Parameter};

/// What every proxy has, whatever the object is.
const METHODS_OF_PROXIES: [&str; 5] = ["later", "with_timeout", "manager", "is_poisoned", "clear_poison"];

/// A block whose methods can be called from other processes.
pub(crate) struct ObjectImpl {
    pub(crate) krate: Path,
    pub(crate) attributes: Attributes,
    /// The block as it was written, but for attributes of ours.
    pub(crate) item: ItemImpl,
    /// The object's type.
    pub(crate) ty: TypePath,
    /// The trait that the block implements.
    pub(crate) of_trait: Option<Path>,
    pub(crate) methods: Vec<Method>,
    /// The widest visibility of the methods; `pub` for those of a trait, which no proxy is wider than.
    pub(crate) visibility: Visibility,
}

/// A method or a constructor.
pub(crate) struct Method {
    pub(crate) attributes: Attributes,
    pub(crate) visibility: Visibility,
    pub(crate) name: Ident,
    pub(crate) kind: MethodKind,
    pub(crate) parameters: Vec<Parameter>,
    /// What travels back: for a constructor, with `()` in the place of `Self`.
    pub(crate) output: Type,
}

/// What a method needs of the object.
pub(crate) enum MethodKind {
    /// It makes one. If it may refuse, this is the type of what it returns, for a `Self` that is the proxy.
    Constructor(Option<Box<Type>>),
    /// `&self`.
    Shared,
    /// `&mut self`.
    Exclusive,
}

impl ObjectImpl {
    /// Reads the attribute's `args` and its `item`.
    ///
    /// # Errors
    /// Everything that is wrong with either, behind the item without attributes of ours.
    pub(crate) fn check(args: TokenStream, item: &TokenStream) -> Result<Self, TokenStream> {
        let mut errors = Errors::of(Subject::OBJECT);
        let krate = AttributeOptions::read(args, AcceptedOptions::CrateOnly, &mut errors).krate;
        let mut block: ItemImpl =
            syn::parse2(item.clone()).map_err(|error| keep_item(item, &not_a_block(item, error)))?;
        let functions = take_functions(&mut block, &mut errors);
        Self::read(krate, block.clone(), &functions, errors)
            .map_err(|errors| keep_item(&block.into_token_stream(), &errors))
    }

    fn read(krate: Path, item: ItemImpl, functions: &[ImplItemFn], mut errors: Errors) -> syn::Result<Self> {
        if !item.generics.params.is_empty() {
            errors.cannot(
                &item.generics.params,
                "be generic",
                "the manager finds its methods by name",
                "write a block for each type that there is",
            );
        }
        let ty = read_type(&item.self_ty, &mut errors);
        task::refuse_where_clause(&item.generics, &mut errors);
        if functions.is_empty() {
            refuse_emptiness(&item, &mut errors);
        }
        let of_trait = item.trait_.as_ref().map(|(path, _)| path.clone());
        let Some(ty) = ty else { return errors.none_or(()).and(Err(Error::new(Span::call_site(), "not a type"))) };
        let own = OwnType { ty: &ty, of_trait: of_trait.as_ref() };
        errors.subject = Subject::METHOD;
        let methods: Vec<_> = functions.iter().filter_map(|function| own.read(function, &mut errors)).collect();
        let visibility = widest(&methods);
        let attributes = Attributes::sort(&item.attrs);
        errors.none_or(Self { krate, attributes, item, ty, of_trait, methods, visibility })
    }
}

/// Says what is wrong with an item that is no `impl` block.
fn not_a_block(item: &TokenStream, error: Error) -> Error {
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Impl(_) | Item::Verbatim(_)) | Err(_) => error,
        Ok(other) => {
            let (what, at) = task::describe(&other);
            let why = "its methods are what other processes call";
            let instead = "put the attribute on the `impl` block that has them";
            Error::new(at, cannot("process object", &format!("be {what}"), why, instead))
        }
    }
}

/// Returns the functions that become methods of the proxy, and takes `#[local]` off the others.
fn take_functions(block: &mut ItemImpl, errors: &mut Errors) -> Vec<ImplItemFn> {
    let is_trait = block.trait_.is_some();
    let mut functions = Vec::new();
    for item in &mut block.items {
        match item {
            ImplItem::Fn(function) => {
                let is_local = take_local(&mut function.attrs, errors);
                if !is_local && (is_trait || !matches!(function.vis, Visibility::Inherited)) {
                    functions.push(function.clone());
                }
            }
            ImplItem::Macro(call) => errors.cannot(
                &call.mac.path,
                "have a macro in its block",
                "the attribute does not see the methods that it writes",
                "write it in a block of its own, without the attribute",
            ),
            _ => {}
        }
    }
    functions
}

/// Takes `#[local]` from `attributes`, and returns whether it was there.
fn take_local(attributes: &mut Vec<Attribute>, errors: &mut Errors) -> bool {
    let before = attributes.len();
    attributes.retain(|attribute| {
        let is_ours = attribute.path().is_ident("local");
        if is_ours && let Err(error) = attribute.meta.require_path_only() {
            errors.add(error);
        }
        !is_ours
    });
    attributes.len() < before
}

fn refuse_emptiness(block: &ItemImpl, errors: &mut Errors) {
    let is_function = |item: &ImplItem| matches!(item, ImplItem::Fn(_));
    let instead = match block.items.iter().any(is_function) {
        _ if block.items.iter().any(|item| matches!(item, ImplItem::Macro(_))) => return,
        true if block.trait_.is_none() => "write `pub` or `pub(crate)` before those that other processes call",
        true => "take `#[local]` from those that other processes call",
        false => "write some, or remove the attribute",
    };
    errors.cannot(&block.self_ty, "be without methods", "its proxy would have none", instead);
}

/// Returns the type as a path, after which its proxy is named.
fn read_type(ty: &Type, errors: &mut Errors) -> Option<TypePath> {
    match ungrouped(ty) {
        Type::Path(path) if path.qself.is_none() => {
            Lifetimes { errors }.visit_type_path_mut(&mut path.clone());
            Some(path.clone())
        }
        other => {
            let why = "its proxy is named after it";
            errors.cannot(other, "be of a type without a name", why, "wrap it in a struct of yours");
            None
        }
    }
}

/// Returns the type that a macro may have wrapped in a group that cannot be seen.
fn ungrouped(mut ty: &Type) -> &Type {
    while let Type::Group(group) = ty {
        ty = &group.elem;
    }
    ty
}

/// Refuses lifetimes in the object's type.
struct Lifetimes<'m> {
    errors: &'m mut Errors,
}

impl VisitMut for Lifetimes<'_> {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            let why = "it lives in another process, for as long as a proxy of it";
            self.errors.cannot(&*lifetime, "borrow anything", why, "let it own what it needs");
        }
    }
}

/// The object's type, which `Self` means in the block but not in what is written outside it.
struct OwnType<'m> {
    ty: &'m TypePath,
    of_trait: Option<&'m Path>,
}

impl OwnType<'_> {
    /// Reads a function; nothing if no function can be as it is, which the compiler reports.
    fn read(&self, function: &ImplItemFn, errors: &mut Errors) -> Option<Method> {
        let signature = &function.sig;
        self.refuse_name(&signature.ident, errors);
        task::refuse_async_and_unsafe(signature, errors);
        task::refuse_abi(signature, errors);
        task::refuse_generics(signature, errors);
        let kind = self.read_kind(signature, errors)?;
        let parameters = task::read_parameters(signature, |ty| Replace::with_type(self).visit_type_mut(ty), errors);
        let mut returned = signature.output.clone();
        if let ReturnType::Type(_, ty) = &mut returned {
            if matches!(kind, MethodKind::Constructor(_)) {
                **ty = self.with_self_as(ty, &syn::parse_quote!(()));
            }
            Replace::with_type(self).visit_type_mut(ty);
        }
        let output = signature::output(&returned, errors);
        task::refuse_where_clause(&signature.generics, errors);
        let is_wrong = |parameter: &Parameter| signature::is_wrong_in_any_function(&parameter.ty);
        if parameters.iter().any(is_wrong) || signature::is_wrong_in_any_function(&output) {
            return None;
        }
        let visibility = if self.of_trait.is_some() { syn::parse_quote!(pub) } else { function.vis.clone() };
        let attributes = Attributes::sort(&function.attrs);
        Some(Method { attributes, visibility, name: signature.ident.clone(), kind, parameters, output })
    }

    fn refuse_name(&self, name: &Ident, errors: &mut Errors) {
        let plain = name.unraw().to_string();
        if METHODS_OF_PROXIES.contains(&plain.as_str()) {
            let instead =
                if self.of_trait.is_some() { "mark it `#[local]`" } else { "rename it, or mark it `#[local]`" };
            errors.cannot(name, &format!("be called `{plain}`"), "every proxy has a method of that name", instead);
        }
    }

    /// Returns what the function needs of the object, unless that cannot be had.
    fn read_kind(&self, signature: &Signature, errors: &mut Errors) -> Option<MethodKind> {
        let Some(receiver) = signature.receiver() else { return self.read_constructor(signature, errors) };
        let typed = match &receiver.kind {
            ReceiverKind::Reference(_, _, mutability) => return Some(of_reference(mutability.is_some())),
            ReceiverKind::Typed(_, ty) => match ungrouped(ty) {
                Type::Reference(reference) if self.is(&reference.elem) => {
                    return Some(of_reference(reference.mutability.is_some()));
                }
                ty => Some(ty),
            },
            _ => None,
        };
        let why = "the object stays in its manager, where other calls use it";
        let instead = "take `&self` or `&mut self`, or mark the method `#[local]`";
        match typed {
            Some(ty) => errors.cannot(ty, "take `self` as another type", why, instead),
            None => errors.cannot(receiver.self_token, "take `self` by value", why, instead),
        }
        None
    }

    fn read_constructor(&self, signature: &Signature, errors: &mut Errors) -> Option<MethodKind> {
        if let ReturnType::Type(_, ty) = &signature.output {
            if self.is(ty) {
                return Some(MethodKind::Constructor(None));
            }
            if made_by_result(ty).is_some_and(|made| self.is(made)) {
                let mut fallible = self.with_self_as(ty, &syn::parse_quote!(Self));
                Replace::but_alone(self).visit_type_mut(&mut fallible);
                return Some(MethodKind::Constructor(Some(Box::new(fallible))));
            }
        }
        errors.cannot(
            &signature.ident,
            "be without `self` unless it makes an object",
            "a proxy could not say which object it is about",
            "return `Self` or `Result<Self, E>`, take `&self`, or mark it `#[local]`",
        );
        None
    }

    /// Whether `ty` is the object's type.
    fn is(&self, ty: &Type) -> bool {
        match ungrouped(ty) {
            Type::Path(path) => path.qself.is_none() && (path.path.is_ident("Self") || tokens(path) == tokens(self.ty)),
            _ => false,
        }
    }

    /// What a constructor returns, `ty`, with `new` in the place of the object.
    fn with_self_as(&self, ty: &Type, new: &Type) -> Type {
        let mut ty = ungrouped(ty).clone();
        if self.is(&ty) {
            return new.clone();
        }
        if let Some(made) = made_by_result_mut(&mut ty) {
            *made = new.clone();
        }
        ty
    }
}

fn of_reference(is_mutable: bool) -> MethodKind {
    if is_mutable { MethodKind::Exclusive } else { MethodKind::Shared }
}

/// The `T` of a `Result<T, …>`, by whatever path.
fn made_by_result(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ungrouped(ty) else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.first().and_then(|first| if let GenericArgument::Type(ty) = first { Some(ty) } else { None })
}

fn made_by_result_mut(ty: &mut Type) -> Option<&mut Type> {
    let Type::Path(path) = ty else { return None };
    let PathArguments::AngleBracketed(arguments) = &mut path.path.segments.last_mut()?.arguments else { return None };
    arguments.args.first_mut().and_then(|first| if let GenericArgument::Type(ty) = first { Some(ty) } else { None })
}

/// Replaces `Self` by the object's type.
struct Replace<'m> {
    own: &'m OwnType<'m>,
    /// Whether a `Self` alone stays: it means the proxy.
    stays_alone: bool,
}

impl<'m> Replace<'m> {
    fn with_type(own: &'m OwnType<'m>) -> Self {
        Self { own, stays_alone: false }
    }

    fn but_alone(own: &'m OwnType<'m>) -> Self {
        Self { own, stays_alone: true }
    }
}

impl VisitMut for Replace<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::Path(TypePath { qself: None, path, .. }) = ty
            && path.segments.first().is_some_and(|first| first.ident == "Self")
        {
            let own = self.own.ty;
            let rest: Vec<_> = path.segments.iter().skip(1).collect();
            match (rest.as_slice(), self.own.of_trait) {
                ([], _) if self.stays_alone => return,
                ([], _) => *ty = Type::Path(own.clone()),
                (rest, Some(of_trait)) => *ty = syn::parse_quote!(<#own as #of_trait>::#(#rest)::*),
                (rest, None) => *ty = syn::parse_quote!(<#own>::#(#rest)::*),
            }
        }
        visit_mut::visit_type_mut(self, ty);
    }

    /// The length of an array may be a constant of the type.
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        if let Expr::Path(path) = expr
            && path.qself.is_none()
            && path.path.segments.first().is_some_and(|first| first.ident == "Self")
        {
            let own = self.own.ty;
            let rest = path.path.segments.iter().skip(1);
            *expr = syn::parse_quote!(<#own>::#(#rest)::*);
        }
        visit_mut::visit_expr_mut(self, expr);
    }
}

/// Returns the widest visibility of `methods`.
fn widest(methods: &[Method]) -> Visibility {
    let rank = |visibility: &Visibility| match visibility {
        Visibility::Public(_) => 3,
        Visibility::Restricted(to) if to.path.is_ident("crate") => 2,
        Visibility::Restricted(_) => 1,
        Visibility::Inherited => 0,
    };
    let visibilities = methods.iter().map(|method| &method.visibility);
    // The first of the widest: methods of two parents' visibilities cannot be compared here.
    visibilities.rev().max_by_key(|visibility| rank(visibility)).cloned().unwrap_or(Visibility::Inherited)
}

/// The tokens of a type without white space, which differs between two ways of parsing it.
fn tokens(ty: &impl ToTokens) -> String {
    ty.to_token_stream().to_string().split_whitespace().collect()
}
