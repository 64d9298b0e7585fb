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
use quote::{format_ident, quote};
use syn::FnArg;
use syn::ext::IdentExt as _;

use crate::names;
use crate::preload::PreloadFn;
use crate::signature::args_lifetime;
use crate::stub::{StubCode, allow_many, one_or_tuple};
use crate::task::{TaskFn, at_call_site};

/// The items that a task becomes.
pub(crate) fn task(task: &TaskFn) -> TokenStream {
    let names = Names::of(task);
    let Names { hidden, .. } = &names;
    let everywhere = &task.attributes.everywhere;
    let visibility = &task.function.visibility;
    let krate = &task.options.krate;
    let value = value(task, &names);
    let function = function(task, &names);
    let stub = StubCode::new(hidden, names.task.unraw().to_string(), &task.parameters, &task.output);
    let formats = stub.formats();
    let run = stub.run(|arguments| quote!(#hidden(#(#arguments),*)));
    let contract = stub.contract(&TokenStream::new(), &quote!(self.options));
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
}

impl Names {
    fn of(task: &TaskFn) -> Self {
        let name = at_call_site(&task.function.signature.ident);
        let hidden = format_ident!("__task_{}", name.unraw(), span = name.span());
        Self { task: name, hidden }
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
    // `spawn` has one parameter more than the function.
    let many = allow_many(parameters.len() + 1);
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
