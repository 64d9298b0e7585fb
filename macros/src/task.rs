//! Parses a function, and refuses what cannot run in another process.
//!
//! ```text
//! task      = { attribute } [ visibility ] "fn" name [ "<" lifetimes ">" ] "(" [ parameters ] ")" [ "->" type ] block
//! parameter = pattern ":" ( type | "&" type )           at most twelve
//! ```
//!
//! Owns: the list of refused forms, in the order of the source. All errors are reported at once. Runs in: the compiler.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, FnArg, GenericParam, Generics, Item, Pat, PatIdent, PatType, Safety, Signature, Token, Type,
    Visibility,
};

use crate::attributes::Attributes;
use crate::diag::{Errors, Subject, cannot};
use crate::options::{AcceptedOptions, AttributeOptions};
use crate::place;
use crate::signature;

/// Number of parameters that a task may have: as many as a tuple may have fields to be printed and compared.
const MAX_PARAMETERS: usize = 12;

/// A function that can be a task.
pub(crate) struct TaskFn {
    pub(crate) options: AttributeOptions,
    pub(crate) attributes: Attributes,
    pub(crate) function: FunctionItem,
    pub(crate) parameters: Vec<Parameter>,
    /// The result's type; `()` when none is written.
    pub(crate) output: Type,
    /// Whether the function is an error without the attribute, which the compiler reports once if nothing is made of it.
    pub(crate) is_wrong_anyway: bool,
}

/// One parameter of a task.
pub(crate) struct Parameter {
    /// What the task's methods call it: its own name, or an invented one if it is a pattern.
    pub(crate) name: Ident,
    /// Its type, in which all lifetimes are [`signature::args_lifetime`].
    pub(crate) ty: Type,
}

/// Any function, its body unread.
pub(crate) struct FunctionItem {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: TokenStream,
}

impl TaskFn {
    /// Reads the attribute's `args` and its `item`, and reports everything that is wrong with either.
    pub(crate) fn check(args: TokenStream, item: &TokenStream) -> syn::Result<Self> {
        let mut errors = Errors::of(Subject::TASK);
        let options = AttributeOptions::read(args, AcceptedOptions::All, &mut errors);
        let Some(function) = errors.check(FunctionItem::read(item, "process task")) else {
            return errors.none_or(()).and(Err(Error::new(Span::call_site(), "not a function")));
        };
        refuse_const(&function.signature, &mut errors);
        refuse_async_and_unsafe(&function.signature, &mut errors);
        refuse_abi(&function.signature, &mut errors);
        refuse_main(&function.signature, &mut errors);
        if function.signature.receiver().is_none() && place::is_in_a_block(&function.signature) {
            errors.cannot(
                &function.signature.ident,
                "be an associated function",
                "it becomes several items, which an `impl` or a trait cannot hold",
                "move it out of the block, where a function may call it",
            );
        }
        refuse_generics(&function.signature, &mut errors);
        refuse_receiver(&function.signature, &mut errors);
        refuse_own_name(&function.signature, &mut errors);
        let parameters = read_parameters(&function.signature, |_| (), &mut errors);
        let output = signature::output(&function.signature.output, &mut errors);
        refuse_where_clause(&function.signature.generics, &mut errors);
        let attributes = Attributes::sort(&function.attributes);
        let is_wrong_anyway =
            parameters.iter().map(|parameter| &parameter.ty).chain([&output]).any(signature::is_wrong_in_any_function);
        errors.none_or(Self { options, attributes, function, parameters, output, is_wrong_anyway })
    }
}

fn refuse_const(signature: &Signature, errors: &mut Errors) {
    if let Some(token) = signature.constness {
        let instead = "make it a plain fn that calls the const one";
        errors.cannot(token, "be const", "another process cannot run while this one is compiled", instead);
    }
}

/// Refuses functions that no other process could call as they need to be called.
pub(crate) fn refuse_async_and_unsafe(signature: &Signature, errors: &mut Errors) {
    if let Some(token) = signature.asyncness {
        let why = format!("{} has no executor", errors.subject.host);
        errors.cannot(token, "be async", &why, "make it a plain fn and block inside");
    }
    if let Safety::Unsafe(token) = signature.safety {
        let instead = "make it a safe fn with an unsafe block inside";
        errors.cannot(token, "be unsafe", "its caller is in another process and can promise nothing", instead);
    }
}

/// Refuses functions of another language's form.
pub(crate) fn refuse_abi(signature: &Signature, errors: &mut Errors) {
    if let Some(abi) = &signature.abi {
        let instead = "make it a plain fn that calls the extern one";
        errors.cannot(abi, "be extern", "it is called from Rust, with Rust values", instead);
    }
}

fn refuse_main(signature: &Signature, errors: &mut Errors) {
    if signature.ident == "main" {
        let instead = "move the work to another function";
        errors.cannot(&signature.ident, "be `main`", "the program itself starts there", instead);
    }
}

/// Refuses parameters of types and constants, and bounds of lifetimes.
pub(crate) fn refuse_generics(signature: &Signature, errors: &mut Errors) {
    let why = format!("{} finds it by name", errors.subject.host);
    for param in &signature.generics.params {
        match param {
            GenericParam::Lifetime(param) if param.bounds.is_empty() => {}
            GenericParam::Lifetime(param) => errors.cannot(
                &param.bounds,
                "bound its lifetimes",
                "all arguments of one call live equally long",
                "remove the bound",
            ),
            GenericParam::Type(param) => {
                errors.cannot(&param.ident, "be generic", &why, "wrap one instance per type");
            }
            GenericParam::Const(param) => errors.cannot(
                &param.ident,
                "be generic over constants",
                &why,
                "wrap one instance per value, or make it a parameter",
            ),
        }
    }
}

/// Refuses a `where` clause.
pub(crate) fn refuse_where_clause(generics: &Generics, errors: &mut Errors) {
    if let Some(clause) = &generics.where_clause {
        errors.cannot(clause, "have a `where` clause", "there is nothing generic in it to bound", "remove the clause");
    }
}

fn refuse_receiver(signature: &Signature, errors: &mut Errors) {
    if let Some(receiver) = signature.receiver() {
        errors.cannot(
            receiver.self_token,
            "be a method",
            "the object stays behind in this process",
            "make it a plain fn and pass what it needs",
        );
    }
}

fn refuse_own_name(signature: &Signature, errors: &mut Errors) {
    for input in &signature.inputs {
        if let FnArg::Typed(input) = input {
            OwnName { task: &signature.ident, errors }.visit_pat_mut(&mut input.pat.as_ref().clone());
        }
    }
}

/// Reads the parameters, but for `self`. `adapt` changes their types first.
pub(crate) fn read_parameters(signature: &Signature, adapt: impl Fn(&mut Type), errors: &mut Errors) -> Vec<Parameter> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for (index, input) in signature.inputs.iter().enumerate() {
        let FnArg::Typed(input) = input else { continue };
        refuse_conditional(input, errors);
        if parameters.len() == MAX_PARAMETERS {
            errors.cannot(
                &input.pat,
                "have more than twelve parameters",
                "they travel as one tuple",
                "group some in a struct",
            );
        }
        let mut ty = input.ty.as_ref().clone();
        adapt(&mut ty);
        let ty = signature::parameter(&ty, &signature.generics, errors);
        parameters.push(Parameter { name: name(input, index, &parameters), ty });
    }
    parameters
}

fn refuse_conditional(input: &PatType, errors: &mut Errors) {
    for attribute in &input.attrs {
        if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
            errors.cannot(
                attribute,
                "have conditional parameters",
                "the macro sees the condition but not whether it holds",
                "put `#[cfg]` on the whole function and write it twice",
            );
        }
    }
}

/// Refuses patterns that bind the task's own name.
struct OwnName<'m> {
    task: &'m Ident,
    errors: &'m mut Errors,
}

impl VisitMut for OwnName<'_> {
    fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
        if pattern.ident.unraw() == self.task.unraw() {
            self.errors.cannot(
                &pattern.ident,
                "have a parameter of its own name",
                "the task is a constant, and a pattern compares with a constant instead of binding it",
                "rename the parameter",
            );
        }
        visit_mut::visit_pat_ident_mut(self, pattern);
    }
}

/// Returns the parameter's own name, if no earlier parameter has it: macros can give several the same name.
fn name(input: &PatType, index: usize, earlier: &[Parameter]) -> Ident {
    let taken = |name: &Ident| earlier.iter().any(|parameter| parameter.name == *name);
    if let Pat::Ident(pattern) = input.pat.as_ref() {
        let name = at_call_site(&pattern.ident);
        if !taken(&name) {
            return name;
        }
    }
    let mut invented = format_ident!("arg{index}", span = Span::call_site());
    while taken(&invented) {
        invented = format_ident!("_{invented}");
    }
    invented
}

/// Returns `ident` as a name of the macro's own, shown where the user wrote it. So lints about the user's names ignore it.
pub(crate) fn at_call_site(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(ident.span().resolved_at(Span::call_site()));
    ident
}

impl FunctionItem {
    /// Reads a function from `item`, which has the attribute of a `kind`.
    pub(crate) fn read(item: &TokenStream, kind: &str) -> syn::Result<Self> {
        syn::parse2(item.clone()).map_err(|error| match syn::parse2::<Item>(item.clone()) {
            Ok(Item::Fn(_) | Item::Verbatim(_)) | Err(_) => error,
            Ok(other) => {
                let (what, at) = describe(&other);
                let why = "only functions can run in another process";
                Error::new(at, cannot(kind, &format!("be {what}"), why, "put the attribute on a function"))
            }
        })
    }
}

impl Parse for FunctionItem {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature: Signature = input.parse()?;
        let mut errors = Errors::of(Subject::TASK);
        if let Some(variadic) = &signature.variadic {
            errors.cannot(variadic, "be variadic", "the child must know how many arguments to read", "take a slice");
        }
        if let Ok(semi) = input.parse::<Token![;]>() {
            let instead = "move the attribute to a function with a body";
            errors.cannot(semi, "lack a body", "there is nothing to run", instead);
        }
        errors.none_or(())?;
        Ok(Self { attributes, visibility, signature, body: input.parse()? })
    }
}

/// Returns what an item is called, and the token that says so.
pub(crate) fn describe(item: &Item) -> (&'static str, Span) {
    match item {
        Item::Fn(item) => ("a function", item.sig.fn_token.span()),
        Item::Struct(item) => ("a struct", item.struct_token.span()),
        Item::Enum(item) => ("an enum", item.enum_token.span()),
        Item::Union(item) => ("a union", item.union_token.span()),
        Item::Impl(item) => ("an impl block", item.impl_token.span()),
        Item::Trait(item) => ("a trait", item.trait_token.span()),
        Item::Mod(item) => ("a module", item.mod_token.span()),
        Item::Const(item) => ("a constant", item.const_token.span()),
        Item::Static(item) => ("a static", item.static_token.span()),
        Item::Type(item) => ("a type alias", item.type_token.span()),
        Item::ForeignMod(item) => ("a block of foreign functions", item.abi.span()),
        Item::Macro(item) => ("a macro call", item.mac.path.span()),
        other => {
            ("this", other.to_token_stream().into_iter().next().map_or_else(Span::call_site, |token| token.span()))
        }
    }
}
