//! Writes the code of a process object that was read and found good.
//!
//! For `#[process_object] impl Counter { pub fn new(start: i64) -> Self { … } pub fn add(&mut self, n: i64) -> i64 { … } }` it
//! writes, beside the block as it was:
//!
//! ```text
//! #[derive(Clone, Debug, PartialEq, Eq, Hash)]
//! pub struct CounterProxy(Proxy<Counter>);
//!
//! #[derive(Clone, Copy, Debug)]
//! pub struct CounterLater<'proxy>(&'proxy CounterProxy);
//!
//! const _: () = {
//!     use ::process_task::__private as __process_task;
//!
//!     impl Object for Counter { fn object_type() -> &'static ObjectType { … } }
//!
//!     #[derive(Clone, Copy)]
//!     struct __object_add;
//!     const _: () = { /* what a task has, for a stub that calls `Counter::add` */ };
//!
//!     impl CounterProxy {
//!         pub fn new(manager: &impl AsRef<ManagerHandle>, start: i64) -> Result<Self> { … }
//!         pub fn add(&self, n: i64) -> Result<i64> { self.__process_task_proxy().call(__object_add, n) }
//!     }
//!     impl CounterLater<'_> { pub fn add(&self, n: i64) -> CallHandle<i64> { … } }
//!     impl CounterProxy { pub fn later(&self) -> CounterLater<'_> … }
//!     impl Serialize for CounterProxy { … }
//! };
//! ```
//!
//! A block of a trait has the hidden types and the first two of these impls. It may stand in another module than the type.
//!
//! Owns: the shape of this code. Never: names anything but `__private`, a path from the root, or what the user wrote.
//! Runs in: the compiler.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote};
use syn::ext::IdentExt as _;
use syn::{Path, Type, Visibility};

use crate::object::{Method, MethodKind, ObjectImpl};
use crate::signature::args_lifetime;
use crate::stub::{StubCode, allow_many, one_or_tuple};
use crate::task::{Parameter, at_call_site};

/// The items that a block becomes.
pub(crate) fn object(object: &ObjectImpl) -> TokenStream {
    let ObjectImpl { krate, item, .. } = object;
    let everywhere = &object.attributes.everywhere;
    let names = ObjectNames::of(object);
    let is_inherent = object.of_trait.is_none();
    let types = is_inherent.then(|| types(object, &names));
    let identity = is_inherent.then(|| identity(object));
    let common = is_inherent.then(|| common(object, &names));
    let serde = is_inherent.then(|| serde(&names));
    let tasks = object.methods.iter().map(|method| task(object, &names, method));
    let proxied = object.methods.iter().map(|method| proxied(object, &names, method));
    let later = object.methods.iter().filter_map(|method| later(object, &names, method));
    let ObjectNames { proxy_path, later_path, .. } = &names;
    quote! {
        #item

        #types

        #(#everywhere)*
        const _: () = {
            use #krate::__private as __process_task;
            #identity
            #(#tasks)*

            impl #proxy_path {
                #(#proxied)*
            }

            impl #later_path<'_> {
                #(#later)*
            }

            #common
            #serde
        };
    }
}

/// The names that the pieces share.
struct ObjectNames {
    /// The object's type, without its module.
    object: Ident,
    proxy: Ident,
    later: Ident,
    /// The same where the block stands.
    proxy_path: Path,
    later_path: Path,
}

impl ObjectNames {
    fn of(object: &ObjectImpl) -> Self {
        let path = &object.ty.path;
        let name = path.segments.last().map_or_else(|| format_ident!("Object"), |last| at_call_site(&last.ident));
        let beside = |ident: &Ident| {
            let mut path = path.clone();
            if let Some(last) = path.segments.last_mut() {
                *last = ident.clone().into();
            }
            path
        };
        let proxy = format_ident!("{}Proxy", name.unraw(), span = name.span());
        let later = format_ident!("{}Later", name.unraw(), span = name.span());
        Self { proxy_path: beside(&proxy), later_path: beside(&later), object: name, proxy, later }
    }

    /// What `method` is called in messages.
    fn full(&self, method: &Method) -> String {
        format!("{}::{}", self.object.unraw(), method.name.unraw())
    }
}

/// The type of the hidden task of `method`.
fn hidden(method: &Method) -> Ident {
    let name = at_call_site(&method.name);
    format_ident!("__object_{}", name.unraw(), span = name.span())
}

/// The types that users see.
fn types(object: &ObjectImpl, names: &ObjectNames) -> TokenStream {
    let ObjectImpl { krate, ty, .. } = object;
    let ObjectNames { object: name, proxy, later, .. } = names;
    let visibility = shown(&object.visibility);
    let everywhere = &object.attributes.everywhere;
    let of_proxy = format!(" A proxy of a `{name}` that lives in a manager. Its methods call those of the object.");
    let of_later = format!(" The methods of a [`{proxy}`], each of which returns at once, with a handle of the call.");
    quote! {
        #(#everywhere)*
        #[doc = #of_proxy]
        ///
        /// It can be cloned and sent to other processes. The object is dropped with its last proxy.
        #[derive(
            ::core::clone::Clone, ::core::fmt::Debug, ::core::cmp::PartialEq, ::core::cmp::Eq, ::core::hash::Hash,
        )]
        #visibility struct #proxy(#krate::__private::Proxy<#ty>);

        #(#everywhere)*
        #[doc = #of_later]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #later<'proxy>(&'proxy #proxy);
    }
}

/// What makes the type an object.
fn identity(object: &ObjectImpl) -> TokenStream {
    let ty = &object.ty;
    let name = object.ty.path.segments.last().map_or_else(String::new, |last| last.ident.unraw().to_string());
    quote! {
        impl __process_task::Object for #ty {
            fn object_type() -> &'static __process_task::ObjectType {
                static __PROCESS_TASK_OBJECT: __process_task::ObjectType = __process_task::ObjectType::new(
                    ::core::concat!(::core::module_path!(), "::", #name),
                    ::core::file!(),
                    ::core::line!(),
                );
                &__PROCESS_TASK_OBJECT
            }
        }
    }
}

/// The hidden task that runs `method`.
fn task(object: &ObjectImpl, names: &ObjectNames, method: &Method) -> TokenStream {
    let ty = &object.ty;
    let hidden = hidden(method);
    let everywhere = &method.attributes.everywhere;
    let allow = method.attributes.extra_on_function();
    let name = at_call_site(&method.name);
    let of_trait = object.of_trait.as_ref().map(|of_trait| quote!(as #of_trait));
    let function = quote!(<#ty #of_trait>::#name);
    let stub = StubCode::new(&hidden, names.full(method), &method.parameters, &method.output);
    let formats = stub.formats();
    let run = stub.run(|arguments| match &method.kind {
        MethodKind::Constructor(None) => quote!(__process_task::created::<#ty>(#function(#(#arguments),*))?),
        MethodKind::Constructor(Some(_)) => quote! {
            match #function(#(#arguments),*) {
                ::core::result::Result::Ok(__process_task_object) => {
                    ::core::result::Result::Ok(__process_task::created::<#ty>(__process_task_object)?)
                }
                ::core::result::Result::Err(__process_task_error) => ::core::result::Result::Err(__process_task_error),
            }
        },
        MethodKind::Shared => quote! {
            __process_task::shared_object::<#ty, _>(|__process_task_object| {
                #function(__process_task_object, #(#arguments),*)
            })?
        },
        MethodKind::Exclusive => quote! {
            __process_task::exclusive_object::<#ty, _>(|__process_task_object| {
                #function(__process_task_object, #(#arguments),*)
            })?
        },
    });
    let object_type = quote!(<#ty as __process_task::Object>::object_type);
    let kind = match &method.kind {
        MethodKind::Constructor(_) => quote!(.constructor(#object_type)),
        MethodKind::Shared => quote!(.method(#object_type, false)),
        MethodKind::Exclusive => quote!(.method(#object_type, true)),
    };
    let contract = stub.contract(&kind, &quote!(__process_task::Options::new()));
    quote! {
        #(#everywhere)*
        #[derive(::core::clone::Clone, ::core::marker::Copy)]
        struct #hidden;

        #(#everywhere)*
        #allow
        const _: () = {
            #formats
            #run
            #contract
        };
    }
}

/// The method of the proxy that calls `method`.
fn proxied(object: &ObjectImpl, names: &ObjectNames, method: &Method) -> TokenStream {
    let ObjectImpl { krate, ty, .. } = object;
    let Method { kind, parameters, output, .. } = method;
    let hidden = hidden(method);
    let head = head(names, method, "an error if that failed, or if the manager is gone.");
    let lifetime = args_lifetime();
    let (arguments, types, args) = split(parameters);
    let create = |constructor: &TokenStream| {
        let manager = manager(parameters);
        let call = quote! {
            __process_task::Proxy::<#ty>::#constructor(::core::convert::AsRef::as_ref(#manager), #hidden, #args)
        };
        let parameter = quote!(#manager: &impl ::core::convert::AsRef<#krate::ManagerHandle>);
        (parameter, call)
    };
    match kind {
        MethodKind::Constructor(None) => {
            let (manager, call) = create(&quote!(create));
            quote! {
                #head<#lifetime>(#manager, #(#arguments: #types),*) -> #krate::Result<Self> {
                    ::core::result::Result::map(#call, |(__process_task_proxy, ())| {
                        Self::__process_task_of(__process_task_proxy)
                    })
                }
            }
        }
        MethodKind::Constructor(Some(fallible)) => {
            let (manager, call) = create(&quote!(try_create));
            quote! {
                #head<#lifetime>(#manager, #(#arguments: #types),*) -> #krate::Result<#fallible> {
                    ::core::result::Result::map(#call, |__process_task_made| {
                        ::core::result::Result::map(__process_task_made, Self::__process_task_of)
                    })
                }
            }
        }
        MethodKind::Shared | MethodKind::Exclusive => quote! {
            #head<#lifetime>(&self, #(#arguments: #types),*) -> #krate::Result<#output> {
                self.__process_task_proxy().call(#hidden, #args)
            }
        },
    }
}

/// The method that calls `method` and does not wait; none for a constructor.
fn later(object: &ObjectImpl, names: &ObjectNames, method: &Method) -> Option<TokenStream> {
    if matches!(method.kind, MethodKind::Constructor(_)) {
        return None;
    }
    let krate = &object.krate;
    let Method { parameters, output, .. } = method;
    let hidden = hidden(method);
    let head = head(names, method, "join the handle for the result.");
    let lifetime = args_lifetime();
    let (arguments, types, args) = split(parameters);
    Some(quote! {
        #head<#lifetime>(&self, #(#arguments: #types),*) -> #krate::CallHandle<#output> {
            self.__process_task_proxy().later(#hidden, #args)
        }
    })
}

/// Everything of a method of a proxy before its parameters.
fn head(names: &ObjectNames, method: &Method, ending: &str) -> TokenStream {
    let attributes = &method.attributes;
    let visibility = shown(&method.visibility);
    let (everywhere, on_value) = (&attributes.everywhere, &attributes.on_value);
    let name = at_call_site(&method.name);
    let paragraph = attributes.documented.then(|| quote!(#[doc = ""]));
    let line = format!(" Calls `{}` in the manager: {ending}", names.full(method));
    // `self` or the manager comes before the method's own.
    let many = allow_many(method.parameters.len() + 2);
    quote! {
        #(#everywhere)*
        #(#on_value)*
        #paragraph
        #[doc = #line]
        #many
        #visibility fn #name
    }
}

/// Returns `visibility` as words of the macro's own: an item begins there, and what is unused in it is not the user's fault.
fn shown(visibility: &Visibility) -> TokenStream {
    let ours = |mut token: TokenTree| {
        token.set_span(token.span().resolved_at(Span::call_site()));
        token
    };
    visibility.to_token_stream().into_iter().map(ours).collect()
}

/// The names and the types of `parameters`, and the arguments that a task of them takes.
fn split(parameters: &[Parameter]) -> (Vec<&Ident>, Vec<&Type>, TokenStream) {
    let (names, types): (Vec<_>, Vec<_>) = parameters.iter().map(|it| (&it.name, &it.ty)).unzip();
    let args = one_or_tuple(&names);
    (names, types, args)
}

/// What a constructor calls the manager: something that no parameter is called.
fn manager(parameters: &[Parameter]) -> Ident {
    let mut name = format_ident!("manager");
    while parameters.iter().any(|parameter| parameter.name.unraw() == name) {
        name = format_ident!("in_{name}");
    }
    name
}

/// What all proxies have, and what the code of other blocks uses.
fn common(object: &ObjectImpl, names: &ObjectNames) -> TokenStream {
    let ObjectImpl { krate, ty, .. } = object;
    let ObjectNames { proxy, later, .. } = names;
    let visibility = shown(&object.visibility);
    quote! {
        impl #proxy {
            /// The same methods, each of which returns at once: with a handle of the call.
            #[must_use]
            #visibility fn later(&self) -> #later<'_> {
                #later(self)
            }

            /// A proxy of the same object, each of whose calls fails once it has taken this long.
            #[must_use = "the proxy itself stays as it is; use what this returns"]
            #visibility fn with_timeout(&self, __process_task_limit: ::core::time::Duration) -> Self {
                Self(self.0.with_timeout(__process_task_limit))
            }

            /// The manager in which the object lives.
            #[must_use]
            #visibility fn manager(&self) -> #krate::ManagerHandle {
                self.0.manager()
            }

            /// Whether a method with `&mut self` has panicked, so that calls fail until [`clear_poison`](Self::clear_poison).
            #visibility fn is_poisoned(&self) -> #krate::Result<::core::primitive::bool> {
                self.0.is_poisoned()
            }

            /// Lets calls reach the object again after a method with `&mut self` has panicked.
            #visibility fn clear_poison(&self) -> #krate::Result<()> {
                self.0.clear_poison()
            }

            #[doc(hidden)]
            #visibility fn __process_task_proxy(&self) -> &__process_task::Proxy<#ty> {
                &self.0
            }

            #[doc(hidden)]
            #visibility fn __process_task_of(__process_task_proxy: __process_task::Proxy<#ty>) -> Self {
                Self(__process_task_proxy)
            }
        }

        impl #later<'_> {
            #[doc(hidden)]
            #visibility fn __process_task_proxy(&self) -> &__process_task::Proxy<#ty> {
                &self.0.0
            }
        }
    }
}

/// What lets proxies travel.
fn serde(names: &ObjectNames) -> TokenStream {
    let proxy = &names.proxy;
    quote! {
        impl __process_task::serde::Serialize for #proxy {
            fn serialize<__ProcessTaskS: __process_task::serde::Serializer>(
                &self,
                __process_task_to: __ProcessTaskS,
            ) -> ::core::result::Result<__ProcessTaskS::Ok, __ProcessTaskS::Error> {
                __process_task::serde::Serialize::serialize(&self.0, __process_task_to)
            }
        }

        impl<'de> __process_task::serde::Deserialize<'de> for #proxy {
            fn deserialize<__ProcessTaskD: __process_task::serde::Deserializer<'de>>(
                __process_task_from: __ProcessTaskD,
            ) -> ::core::result::Result<Self, __ProcessTaskD::Error> {
                ::core::result::Result::map(
                    __process_task::serde::Deserialize::deserialize(__process_task_from),
                    Self,
                )
            }
        }
    }
}
