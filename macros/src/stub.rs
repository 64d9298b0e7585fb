//! Writes what a task is to the runtime: how its values cross, the stub that a child or a manager runs, its registration and its `Task`
//! implementation.
//!
//! A method of a process object has the same, under a hidden type of its own. What differs is the call itself, and the
//! kind of the registration.
//!
//! Owns: the shape of this code. Never: names anything but `__private`, by the name `__process_task`, a path from the root, or
//! what the user wrote. Runs in: the compiler.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned as _;

use crate::signature::args_lifetime;
use crate::task::Parameter;

/// A task as the runtime sees it.
pub(crate) struct StubCode<'t> {
    /// The type that implements `Task`.
    hidden: &'t Ident,
    /// Its name in the registry, below its module.
    name: String,
    parameters: &'t [Parameter],
    output: &'t Type,
    /// What the stubs call the arguments.
    locals: Vec<Ident>,
    /// What they call the functions that say how the arguments cross.
    formats: Vec<Ident>,
    /// What they call the arguments' types: a type that is written twice is wrong twice.
    types: Vec<Ident>,
}

impl<'t> StubCode<'t> {
    /// The stub of the task of type `hidden`, called `name`.
    pub(crate) fn new(hidden: &'t Ident, name: String, parameters: &'t [Parameter], output: &'t Type) -> Self {
        let locals = (0..parameters.len()).map(|index| format_ident!("__process_task_argument_{index}")).collect();
        let formats = (0..parameters.len()).map(|index| format_ident!("__process_task_format_{index}")).collect();
        let types = (0..parameters.len()).map(|index| format_ident!("__ProcessTaskArgument{index}")).collect();
        Self { hidden, name, parameters, output, locals, formats, types }
    }

    /// The parameters and what the stubs call what belongs to them.
    fn arguments(&self) -> impl Iterator<Item = Argument<'_>> {
        let names = self.locals.iter().zip(&self.formats);
        self.parameters.iter().zip(names).map(|(parameter, (local, format))| Argument { parameter, local, format })
    }

    /// One function for each value that crosses, which says how.
    pub(crate) fn formats(&self) -> TokenStream {
        let lifetime = args_lifetime();
        let choices = choices();
        let format = |name: &Ident, ty: &Type, alias: &TokenStream| {
            // If the type cannot cross, that is reported where the user wrote it.
            quote_spanned! { ty.span().resolved_at(Span::call_site())=>
                #[inline]
                fn #name<#lifetime>() -> __process_task::Codec<#lifetime, #alias> {
                    #choices
                    __process_task::codec::<#ty, _>((&&__process_task::by_value::<#ty>()).choose())
                }
            }
        };
        let arguments = self.arguments().zip(&self.types).map(|(argument, alias)| {
            let ty = &argument.parameter.ty;
            let format = argument.target().is_none().then(|| format(argument.format, ty, &quote!(#alias<#lifetime>)));
            quote!(type #alias<#lifetime> = #ty; #format)
        });
        let hidden = self.hidden;
        let output = format(&output_format(), self.output, &quote!(<#hidden as __process_task::Task>::Output));
        quote!(#(#arguments)* #output)
    }

    /// The stub that a child runs. `call` writes the call, of the arguments that it is given.
    pub(crate) fn run(&self, call: impl FnOnce(&[TokenStream]) -> TokenStream) -> TokenStream {
        let locals = &self.locals;
        let lifetime = args_lifetime();
        let choices = choices();
        let arguments: Vec<_> = self.arguments().collect();
        let take = arguments.iter().map(Argument::take);
        let call = call(&arguments.iter().map(Argument::pass).collect::<Vec<_>>());
        let (output, output_format) = (self.output, output_format());
        let again = again(&quote!(#output_format()));
        quote! {
            fn __process_task_run<#lifetime>(
                __process_task_bytes: &#lifetime [u8],
                __process_task_writer: &mut __process_task::Writer<'_>,
            ) -> ::core::result::Result<(), __process_task::StubError> {
                #choices
                let mut __process_task_reader = __process_task::Reader::new(__process_task_bytes);
                #(let #locals = #take.map_err(__process_task::StubError::Decode)?;)*
                __process_task_reader.finish().map_err(__process_task::StubError::Decode)?;
                let __process_task_result: #output = #call;
                #output_format()
                    .encode(&__process_task_result, __process_task_writer, #again)
                    .map_err(__process_task::StubError::Encode)
            }
        }
    }

    /// The registration and the `Task` implementation. `kind` is written behind the registration, and `options` says where the
    /// options of `self` are.
    pub(crate) fn contract(&self, kind: &TokenStream, options: &TokenStream) -> TokenStream {
        let Self { hidden, locals, types, name, .. } = self;
        let lifetime = args_lifetime();
        let choices = choices();
        let args = one_or_tuple(&types.iter().map(|alias| quote!(#alias<#lifetime>)).collect::<Vec<_>>());
        let pattern = one_or_tuple(locals);
        let put_each = self.arguments().map(|argument| argument.put());
        let (output, output_format) = (self.output, output_format());
        quote! {
            static __PROCESS_TASK_REGISTRATION: __process_task::Registration = __process_task::Registration::new(
                ::core::concat!(::core::module_path!(), "::", #name),
                ::core::file!(),
                ::core::line!(),
                __process_task_run,
            ) #kind;

            __process_task::inventory::submit! { __process_task::Entry(&__PROCESS_TASK_REGISTRATION) }

            impl __process_task::Task for #hidden {
                type Args<#lifetime> = #args;
                type Output = #output;

                #[inline]
                fn registration(&self) -> &'static __process_task::Registration {
                    &__PROCESS_TASK_REGISTRATION
                }

                #[inline]
                fn options(&self) -> __process_task::Options {
                    #options
                }

                #[inline]
                fn encode<#lifetime>(
                    __process_task_args: Self::Args<#lifetime>,
                    __process_task_writer: &mut __process_task::Writer<'_>,
                ) -> ::core::result::Result<(), __process_task::CodecError> {
                    #choices
                    let #pattern = __process_task_args;
                    #(#put_each?;)*
                    ::core::result::Result::Ok(())
                }

                #[inline]
                fn decode_output(
                    __process_task_bytes: &[u8],
                ) -> ::core::result::Result<Self::Output, __process_task::CodecError> {
                    #output_format().decode_whole(__process_task_bytes)
                }
            }
        }
    }
}

/// What the stubs call the function that says how the result crosses.
fn output_format() -> Ident {
    Ident::new("__process_task_output", Span::call_site())
}

/// A parameter, and what the stubs call it.
struct Argument<'t> {
    parameter: &'t Parameter,
    local: &'t Ident,
    /// The function that says how it crosses, if it is no reference.
    format: &'t Ident,
}

impl Argument<'_> {
    /// What the parameter borrows, if it is a reference.
    fn target(&self) -> Option<&Type> {
        let mut ty = &self.parameter.ty;
        // A macro may have wrapped the type in a group that cannot be seen.
        while let Type::Group(group) = ty {
            ty = &group.elem;
        }
        if let Type::Reference(reference) = ty { Some(&reference.elem) } else { None }
    }

    /// Appends it to the payload.
    fn put(&self) -> TokenStream {
        let Self { local, format, .. } = self;
        match self.target() {
            None => {
                let again = again(&quote!(#format()));
                quote!(#format().encode(&#local, __process_task_writer, #again))
            }
            Some(target) => {
                let loan = loan(target);
                let again = again(&loan);
                quote!(#loan.push(#local, __process_task_writer, #again))
            }
        }
    }

    /// Takes it, or what lends it, from the payload.
    fn take(&self) -> TokenStream {
        match self.target() {
            None => {
                let format = self.format;
                quote!(#format().decode(&mut __process_task_reader))
            }
            Some(target) => {
                let loan = loan(target);
                quote!(#loan.pull(&mut __process_task_reader))
            }
        }
    }

    /// Passes it to the function.
    fn pass(&self) -> TokenStream {
        let local = self.local;
        let Some(target) = self.target() else { return quote!(#local) };
        let loan = loan(target);
        quote!(#loan.lend(&#local))
    }
}

/// Reads a value by `format` and says what is written of it, for any lifetime in its type: what a trial of the sender calls.
fn again(format: &TokenStream) -> TokenStream {
    let lifetime = args_lifetime();
    quote! {
        {
            fn __process_task_again<#lifetime>(
                __process_task_reader: &mut __process_task::Reader<#lifetime>,
                __process_task_log: &mut __process_task::Log<'_>,
            ) -> ::core::result::Result<(), __process_task::CodecError> {
                #format.again(__process_task_reader, __process_task_log)
            }
            __process_task_again
        }
    }
}

/// How references to `target` cross. If they cannot, that is reported where the user wrote `target`.
fn loan(target: &Type) -> TokenStream {
    quote_spanned! { target.span().resolved_at(Span::call_site())=>
        __process_task::loan::<#target, _>((&&&&__process_task::by_reference::<#target>()).choose())
    }
}

/// Brings the `choose` methods into scope.
fn choices() -> TokenStream {
    quote! {
        use __process_task::{
            ChooseBorrowed as _, ChooseElements as _, ChooseNothing as _, ChooseOwnedPlain as _, ChooseOwnedSerde as _,
            ChoosePlain as _, ChooseSerde as _,
        };
    }
}

/// What a function with `count` parameters needs where clippy counts them. It complains of eight, or of as many as the user
/// has told it, so an expectation could fail.
pub(crate) fn allow_many(count: usize) -> Option<TokenStream> {
    (count > 7).then(|| quote!(#[allow(clippy::too_many_arguments, reason = "the user's function has nearly as many")]))
}

/// The arguments of a call: one is itself, several are a tuple.
pub(crate) fn one_or_tuple<T: quote::ToTokens>(items: &[T]) -> TokenStream {
    match items {
        [one] => quote!(#one),
        several => quote!((#(#several),*)),
    }
}
