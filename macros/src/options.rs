//! Parses the options in the attribute's parentheses.
//!
//! ```text
//! options = [ option { "," option } [ "," ] ]
//! option  = "timeout" "=" string      number and unit: ms, s, m, h
//!         | "retries" "=" integer     one or more
//!         | "crate" "=" path          also as a string
//! ```
//!
//! Owns: this grammar. An error in one option does not hide an error in another.
//! Runs in: the compiler.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::{Error, Expr, Lit, Path, Token};

use crate::diag::Errors;

/// The options of an attribute.
pub(crate) struct AttributeOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) krate: Path,
}

/// The options that an attribute accepts.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum AcceptedOptions {
    /// All options.
    All,
    /// Only `crate`.
    CrateOnly,
}

impl AttributeOptions {
    /// Parses `args`; errors go to `errors`.
    pub(crate) fn read(args: TokenStream, accepted: AcceptedOptions, errors: &mut Errors) -> Self {
        let mut options = Self { timeout: None, retries: None, krate: syn::parse_quote!(::process_task) };
        let mut seen: Vec<String> = Vec::new();
        for piece in split_at_commas(args) {
            let Some(key) = errors.check(key.parse2(piece.clone())) else { continue };
            let name = key.to_string();
            if seen.contains(&name) {
                errors.add(Error::new(key.span(), format!("`{name}` is given twice")));
                continue;
            }
            match (name.as_str(), accepted) {
                ("timeout", AcceptedOptions::All) => options.timeout = errors.check(value(piece, timeout)),
                ("retries", AcceptedOptions::All) => options.retries = errors.check(value(piece, retries)),
                ("crate", _) => {
                    if let Some(path) = errors.check(value(piece, path)) {
                        options.krate = path;
                    }
                }
                _ => errors.add(unknown(&key, accepted)),
            }
            seen.push(name);
        }
        options
    }
}

/// Splits at the commas outside brackets. A comma at the end is allowed.
fn split_at_commas(args: TokenStream) -> Vec<TokenStream> {
    let mut pieces = vec![TokenStream::new()];
    for token in args {
        match (&token, pieces.last_mut()) {
            (TokenTree::Punct(punct), Some(piece)) if punct.as_char() == ',' && !piece.is_empty() => {
                pieces.push(TokenStream::new());
            }
            (_, Some(piece)) => piece.extend([token]),
            (_, None) => {}
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Parses the word before the equals sign.
fn key(input: ParseStream<'_>) -> syn::Result<Ident> {
    let key =
        input.call(Ident::parse_any).map_err(|error| Error::new(error.span(), "expected the name of an option"))?;
    if !input.peek(Token![=]) && ["timeout", "retries", "crate"].contains(&key.to_string().as_str()) {
        return Err(Error::new(key.span(), format!("`{key}` needs a value: `{}`", example(&key.to_string()))));
    }
    input.parse::<TokenStream>()?;
    Ok(key)
}

/// Parses what follows the equals sign with `read`.
fn value<T>(piece: TokenStream, read: fn(ParseStream<'_>) -> syn::Result<T>) -> syn::Result<T> {
    let parser = |input: ParseStream<'_>| {
        input.call(Ident::parse_any)?;
        input.parse::<Token![=]>()?;
        read(input)
    };
    parser.parse2(piece)
}

fn example(key: &str) -> &'static str {
    match key {
        "timeout" => "timeout = \"2s\"",
        "retries" => "retries = 3",
        _ => "crate = path::to::process_task",
    }
}

fn unknown(key: &Ident, accepted: AcceptedOptions) -> Error {
    let accepted = match accepted {
        AcceptedOptions::All => "`timeout`, `retries` or `crate`",
        AcceptedOptions::CrateOnly => "`crate`",
    };
    Error::new(key.span(), format!("unknown option `{key}`; expected {accepted}"))
}

/// A literal, which a macro may have wrapped in a group that cannot be seen.
struct Literal {
    /// `None`: an expression of another kind.
    lit: Option<Lit>,
    written: Expr,
}

impl Parse for Literal {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let written: Expr = input.parse()?;
        let mut bare = &written;
        while let Expr::Group(group) = bare {
            bare = &group.expr;
        }
        let lit = if let Expr::Lit(literal) = bare { Some(literal.lit.clone()) } else { None };
        Ok(Self { lit, written })
    }
}

fn timeout(input: ParseStream<'_>) -> syn::Result<Duration> {
    let Literal { lit, written } = input.parse()?;
    let refuse = |why: &str| {
        Error::new_spanned(&written, format!("`timeout` {why}; write it like \"2s\", \"1.5s\" or \"250ms\""))
    };
    let Some(Lit::Str(text)) = lit else {
        return Err(refuse("must be a string of a number and a unit"));
    };
    let text = text.value();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| refuse("must have a unit"))?;
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refuse("must have one of the units ms, s, m and h")),
    };
    if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(refuse("must be a positive number and a unit, without a space"));
    }
    let number: f64 = number.parse().map_err(|_| refuse("must be a positive number and a unit"))?;
    let duration = Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| refuse("is too long"))?;
    if duration.is_zero() {
        return Err(refuse("is zero, which no call can meet"));
    }
    Ok(duration)
}

fn retries(input: ParseStream<'_>) -> syn::Result<u32> {
    let Literal { lit, written } = input.parse()?;
    let refuse = || Error::new_spanned(&written, "`retries` must be a whole number, 1 or more; leave it out for none");
    match lit {
        Some(Lit::Int(number)) => number.base10_parse().ok().filter(|&retries| retries > 0).ok_or_else(refuse),
        _ => Err(refuse()),
    }
}

fn path(input: ParseStream<'_>) -> syn::Result<Path> {
    if input.peek(syn::LitStr) {
        return input.parse::<syn::LitStr>()?.parse();
    }
    input.call(Path::parse_mod_style).map_err(|error| Error::new(error.span(), "`crate` must be a path"))
}
