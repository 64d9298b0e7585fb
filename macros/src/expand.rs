//! Writes the code of a task that was read and found good.
//!
//! For `#[process_task] pub fn count(text: &str) -> usize { … }` it writes:
//!
//! ```text
//! /// (the function's docs, and a line of ours)
//! pub const count: __task_count = __task_count { options: Options::new() };
//!
//! #[doc(hidden)]
//! #[derive(Clone, Copy)]
//! pub struct __task_count { options: Options }
//!
//! const _: () = {
//!     use ::process_task::__private as __process_task;
//!
//!     fn __task_count(text: &str) -> usize { … }             // as it was written
//!
//!     fn __process_task_output<'args>() -> Codec<'args, usize> { codec(choice) }
//!
//!     fn __process_task_run<'args>(bytes: &'args [u8], writer: &mut Writer<'_>) -> Result<(), StubError> {
//!         let mut reader = Reader::new(bytes);
//!         let argument_0 = loan::<str, _>(choice).pull(&mut reader)?;
//!         reader.finish()?;
//!         let output = __task_count(loan::<str, _>(choice).lend(&argument_0));
//!         __process_task_output().encode(&output, writer)
//!     }
//!
//!     static __PROCESS_TASK_REGISTRATION: Registration = …;
//!     submit! { Entry(&__PROCESS_TASK_REGISTRATION) }
//!
//!     impl Deref for __task_count { type Target = fn(&str) -> usize; … }
//!     impl Task for __task_count { type Args<'args> = &'args str; type Output = usize; … }
//!     impl __task_count { pub const fn timeout(self, limit: Duration) -> Self … }
//!     impl __task_count { pub fn spawn(self, text: &str) -> Process<usize> … }
//! };
//! ```
//!
//! where `choice` asks [`codec::choose`] about the type. Locals are dropped in reverse: first the result, then what the
//! arguments were lent from. The format of each value is asked for in one function: the compiler reports a type that cannot
//! travel once for each place that asks, if the type is long.
//!
//! Owns: the shape of this code. Never: names anything but `__private`, a path from the root, or what the user wrote;
//! gives two different outputs for one input. Runs in: the compiler.
//!
//! All locals are mangled: a plain one would be a pattern that names a constant wherever a task is called the same.
//!
//! All names have the span of the user's word, resolved at the call site: errors point to that word, and lints see code
//! of a macro.
//!
//! [`codec::choose`]: https://docs.rs/process-task

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{FnArg, Type};

use crate::names;
use crate::preload::PreloadFn;
use crate::signature::args_lifetime;
use crate::task::{Parameter, TaskFn, at_call_site};

/// The items that a task becomes.
pub(crate) fn task(task: &TaskFn) -> TokenStream {
    let names = Names::of(task);
    let Names { hidden, .. } = &names;
    let everywhere = &task.attributes.everywhere;
    let visibility = &task.function.visibility;
    let krate = &task.options.krate;
    let value = value(task, &names);
    let function = function(task, &names);
    let formats = formats(task, &names);
    let run = run(task, &names);
    let contract = contract(task, &names);
    let callable = callable(task, &names);
    let methods = methods(task, &names);
    quote! {
        #value

        #(#everywhere)*
        #[doc(hidden)]
        #[derive(::core::clone::Clone, ::core::marker::Copy)]
        #visibility struct #hidden {
            options: #krate::__private::Options,
        }

        #(#everywhere)*
        const _: () = {
            use #krate::__private as __process_task;
            #function
            #formats
            #run
            #contract
            #callable
            #methods
        };
    }
}

/// A preload function and its registration.
pub(crate) fn preload(preload: &PreloadFn) -> TokenStream {
    let PreloadFn { krate, attributes, function, item } = preload;
    let everywhere = &attributes.everywhere;
    let allow = attributes.extra_on_function();
    let name = at_call_site(&function.signature.ident);
    quote! {
        #item

        #(#everywhere)*
        #allow
        const _: () = {
            #krate::__private::inventory::submit! { #krate::__private::Preload(#name) }
        };
    }
}

/// The names that the pieces share.
struct Names {
    /// What the user calls the task.
    task: Ident,
    /// The task's type, and in another namespace its function.
    hidden: Ident,
    /// What the stubs call the arguments.
    locals: Vec<Ident>,
    /// What they call the functions that say how the arguments cross.
    formats: Vec<Ident>,
    /// What they call the arguments' types: a type that is written twice is wrong twice.
    types: Vec<Ident>,
}

impl Names {
    fn of(task: &TaskFn) -> Self {
        let name = at_call_site(&task.function.signature.ident);
        let hidden = format_ident!("__task_{}", name.unraw(), span = name.span());
        let locals = (0..task.parameters.len()).map(|index| format_ident!("__process_task_argument_{index}")).collect();
        let formats = (0..task.parameters.len()).map(|index| format_ident!("__process_task_format_{index}")).collect();
        let types = (0..task.parameters.len()).map(|index| format_ident!("__ProcessTaskArgument{index}")).collect();
        Self { task: name, hidden, locals, formats, types }
    }

    /// The parameters of `task` and what the stubs call what belongs to them.
    fn arguments<'t>(&'t self, task: &'t TaskFn) -> impl Iterator<Item = Argument<'t>> {
        let names = self.locals.iter().zip(&self.formats);
        task.parameters.iter().zip(names).map(|(parameter, (local, format))| Argument { parameter, local, format })
    }
}

/// The constant that users see.
fn value(task: &TaskFn, names: &Names) -> TokenStream {
    let Names { task: name, hidden, .. } = names;
    let (everywhere, on_value) = (&task.attributes.everywhere, &task.attributes.on_value);
    let visibility = &task.function.visibility;
    let krate = &task.options.krate;
    let timeout = task.options.timeout.map(|timeout| {
        let (seconds, nanos) = (timeout.as_secs(), timeout.subsec_nanos());
        quote!(.with_timeout(::core::time::Duration::new(#seconds, #nanos)))
    });
    let retries = task.options.retries.map(|retries| quote!(.with_retries(#retries)));
    let paragraph = task.attributes.documented.then(|| quote!(#[doc = ""]));
    let parameters: Vec<_> = task.parameters.iter().map(|parameter| parameter.name.to_string()).collect();
    let line = format!(
        " A process task: call it as a function, or start it in a process with `{name}.spawn({})`.",
        parameters.join(", ")
    );
    let more = " `.timeout(…)`, `.retries(…)` and `.memory_limit(…)` before that make the task with this option.";
    quote! {
        #(#everywhere)*
        #(#on_value)*
        #paragraph
        #[doc = #line]
        #[doc = #more]
        #visibility const #name: #hidden = #hidden {
            options: #krate::__private::Options::new() #timeout #retries,
        };
    }
}

/// The function as it was written, but for its name: in its own body too, the task's name is the task.
fn function(task: &TaskFn, names: &Names) -> TokenStream {
    let on_function = &task.attributes.on_function;
    let extra = task.attributes.extra_on_function();
    let mut signature = task.function.signature.clone();
    signature.ident = names.hidden.clone();
    signature.fn_token.span = signature.fn_token.span.resolved_at(Span::call_site());
    let body = names::warn(&names.task, &task.function.body);
    quote! {
        #(#on_function)*
        #extra
        #signature #body
    }
}

/// One function for each value that crosses, which says how.
fn formats(task: &TaskFn, names: &Names) -> TokenStream {
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
    let arguments = names.arguments(task).zip(&names.types).map(|(argument, alias)| {
        let ty = &argument.parameter.ty;
        let format = argument.target().is_none().then(|| format(argument.format, ty, &quote!(#alias<#lifetime>)));
        quote!(type #alias<#lifetime> = #ty; #format)
    });
    let hidden = &names.hidden;
    let output = format(&output_format(), &task.output, &quote!(<#hidden as __process_task::Task>::Output));
    quote!(#(#arguments)* #output)
}

/// What the stubs call the function that says how the result crosses.
fn output_format() -> Ident {
    Ident::new("__process_task_output", Span::call_site())
}

/// The stub that a child runs.
fn run(task: &TaskFn, names: &Names) -> TokenStream {
    let Names { hidden, locals, .. } = names;
    let lifetime = args_lifetime();
    let choices = choices();
    let arguments: Vec<_> = names.arguments(task).collect();
    let take = arguments.iter().map(Argument::take);
    let pass = arguments.iter().map(Argument::pass);
    let (output, output_format) = (&task.output, output_format());
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
            let __process_task_result: #output = #hidden(#(#pass),*);
            #output_format()
                .encode(&__process_task_result, __process_task_writer, #again)
                .map_err(__process_task::StubError::Encode)
        }
    }
}

/// The registration and the `Task` implementation.
fn contract(task: &TaskFn, names: &Names) -> TokenStream {
    let Names { hidden, locals, types, task: name, .. } = names;
    let lifetime = args_lifetime();
    let choices = choices();
    let args = one_or_tuple(&types.iter().map(|alias| quote!(#alias<#lifetime>)).collect::<Vec<_>>());
    let pattern = one_or_tuple(locals);
    let put_each = names.arguments(task).map(|argument| argument.put());
    let (output, output_format) = (&task.output, output_format());
    let name = name.unraw().to_string();
    quote! {
        static __PROCESS_TASK_REGISTRATION: __process_task::Registration = __process_task::Registration::new(
            ::core::concat!(::core::module_path!(), "::", #name),
            ::core::file!(),
            ::core::line!(),
            __process_task_run,
        );

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
                self.options
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

/// What makes `square(3)` and `.map(*square)` work.
fn callable(task: &TaskFn, names: &Names) -> TokenStream {
    let Names { hidden, .. } = names;
    let signature = &task.function.signature;
    let lifetimes = &signature.generics.params;
    let binder = (!lifetimes.is_empty()).then(|| quote!(for<#lifetimes>));
    let types = signature
        .inputs
        .iter()
        .filter_map(|input| if let FnArg::Typed(input) = input { Some(&input.ty) } else { None });
    let output = &signature.output;
    quote! {
        impl ::core::ops::Deref for #hidden {
            type Target = #binder fn(#(#types),*) #output;

            #[inline]
            fn deref(&self) -> &Self::Target {
                const __PROCESS_TASK_FUNCTION: <#hidden as ::core::ops::Deref>::Target = #hidden;
                &__PROCESS_TASK_FUNCTION
            }
        }
    }
}

/// The methods that a task has.
fn methods(task: &TaskFn, names: &Names) -> TokenStream {
    let Names { hidden, .. } = names;
    let krate = &task.options.krate;
    let output = &task.output;
    let lifetime = args_lifetime();
    let (parameters, types): (Vec<_>, Vec<_>) =
        task.parameters.iter().map(|parameter| (&parameter.name, &parameter.ty)).unzip();
    let args = one_or_tuple(&parameters);
    // `spawn` has one parameter more than the function: clippy complains of eight.
    let many = (parameters.len() >= 7).then(|| quote!(#[allow(clippy::too_many_arguments)]));
    quote! {
        impl #hidden {
            /// The task with a limit of time for each of its calls: the process that runs one for longer is killed, with
            /// all that it started, and the call fails with `ErrorKind::TimedOut`.
            #[must_use = "the task itself stays as it is; use what this returns"]
            pub const fn timeout(self, __process_task_limit: ::core::time::Duration) -> Self {
                Self { options: self.options.with_timeout(__process_task_limit) }
            }

            /// The task with its calls repeated, up to so many times, if the process that runs one dies or is killed
            /// because it took too long. For tasks that may run twice, in pools.
            #[must_use = "the task itself stays as it is; use what this returns"]
            pub const fn retries(self, __process_task_times: u32) -> Self {
                Self { options: self.options.with_retries(__process_task_times) }
            }

            /// The task with a limit for the address space, in bytes, that its process has while it runs a call. Beyond
            /// it, allocation fails and the process aborts.
            #[must_use = "the task itself stays as it is; use what this returns"]
            pub const fn memory_limit(self, __process_task_bytes: u64) -> Self {
                Self { options: self.options.with_memory_limit(__process_task_bytes) }
            }
        }

        #many
        impl #hidden {
            /// Starts a process that makes this call. Join the handle for the result.
            pub fn spawn<#lifetime>(self, #(#parameters: #types),*) -> #krate::Process<#output> {
                __process_task::spawn(self, #args)
            }
        }
    }
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

/// The arguments of a call: one is itself, several are a tuple.
fn one_or_tuple<T: quote::ToTokens>(items: &[T]) -> TokenStream {
    match items {
        [one] => quote!(#one),
        several => quote!((#(#several),*)),
    }
}
