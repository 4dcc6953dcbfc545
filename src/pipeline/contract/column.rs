//! One column's draft as a column: what its keys must agree on among themselves.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::super::value::{Type, Value, is_longer_than};
use super::draft::{ColumnDraft, DefaultDraft, Given, MaskName, SourceDraft};
use super::faults::{Scope, shown};
use super::literal::literal;
use super::{Canonical, Column, DefaultValue, Limits, Mask, Parse, Rules, Source, System};

/// Checks a draft and makes the column. Where a fault was noted the column holds a placeholder: it must not be used.
pub(super) fn column(draft: &ColumnDraft, source: Source, scope: &mut Scope) -> Column {
    let kind = kind(draft, scope);
    let mask = mask(draft, scope);
    if let (Some(kind), Some(mask)) = (kind, &mask) {
        kind_holds_mask(draft, kind, mask, scope);
    }
    // Until the type and the mask are known, nothing can be said of what depends on them.
    let checked_as = match (is_masked(draft), kind) {
        (true, _) => Some(Type::Text),
        (false, kind) => kind,
    };
    source_fits(draft, checked_as, scope);
    parse_fits(draft, kind, scope);
    let canonical = canonical(draft, mask.as_ref(), checked_as, scope);
    let rules = rules(draft, &canonical, kind, checked_as, scope);
    let default = default(draft, &canonical, &rules, checked_as, scope);
    Column {
        name: draft.name.clone(),
        source,
        kind: kind.unwrap_or(Type::Text),
        required: draft.required.value().copied().unwrap_or(false),
        default,
        canonical,
        parse: draft.parse.value().copied(),
        rules,
        mask,
    }
}

/// Whether a mask was asked for, be it a faulty one.
pub(super) fn is_masked(draft: &ColumnDraft) -> bool {
    !(draft.mask.is_absent() && draft.keep_last.is_absent())
}

/// Where the column's value is read from; by default the field of the column's own name, dots and all.
pub(super) fn source_of(draft: &ColumnDraft) -> SourceDraft {
    match draft.from.value() {
        Some(source) => source.clone(),
        None => SourceDraft::Path(vec![draft.name.clone()]),
    }
}

fn kind(draft: &ColumnDraft, scope: &mut Scope) -> Option<Type> {
    if draft.kind.is_absent() {
        scope.add(
            draft.at.clone(),
            "the type is missing; add the table's, such as type = \"text\" or type = \"integer\"",
        );
    }
    draft.kind.value().copied()
}

/// The mask, from `mask` or `keep_last`, and the keys that speak of it.
fn mask(draft: &ColumnDraft, scope: &mut Scope) -> Option<Mask> {
    if let (false, Some((at, _))) = (draft.mask.is_absent(), draft.keep_last.with_place()) {
        scope.add(at, "keep_last is itself the mask; remove it or mask");
    }
    unkeyed(draft, scope);
    domain(draft, scope);
    personal(draft, scope);
    match (draft.mask.value(), draft.keep_last.value()) {
        (Some(MaskName::HmacSha256), _) => Some(Mask::HmacSha256 { domain: domain_of(draft) }),
        (Some(MaskName::Sha256), _) => Some(Mask::Sha256),
        (Some(MaskName::Redact), _) => Some(Mask::Redact),
        (Some(MaskName::Truncate), _) => Some(Mask::Truncate),
        (None, Some(n)) => Some(Mask::KeepLast(*n)),
        (None, None) => None,
    }
}

fn unkeyed(draft: &ColumnDraft, scope: &mut Scope) {
    let is_sha256 = matches!(draft.mask.value(), Some(MaskName::Sha256));
    match (is_sha256, draft.unkeyed.place(), draft.mask.place()) {
        (true, _, Some(at)) if draft.unkeyed.is_absent() => scope.add(
            at,
            "\"sha256\" has no key, so whoever sees the column can find the values by trying them all; use \
             \"hmac-sha256\", or add unkeyed = \"accepted\"",
        ),
        (false, Some(at), _) => scope.add(at, "unkeyed is for mask = \"sha256\" only; remove it"),
        _ => {}
    }
}

fn domain(draft: &ColumnDraft, scope: &mut Scope) {
    let is_other_mask = !matches!(draft.mask, Given::Faulty) && draft.mask.value() != Some(&MaskName::HmacSha256);
    if let (true, Some(at)) = (is_other_mask, draft.domain.place()) {
        scope.add(at, "domain is for mask = \"hmac-sha256\" only; remove it");
    }
}

/// What keeps equal values of different sources apart: the source, unless the contract gives another domain.
fn domain_of(draft: &ColumnDraft) -> String {
    match (draft.domain.value(), source_of(draft)) {
        (Some(domain), _) => domain.clone(),
        (None, SourceDraft::Path(names)) => names.join("."),
        (None, SourceDraft::System(system)) => system.to_string(),
        (None, SourceDraft::Attribute(name)) => format!("$attribute.{name}"),
    }
}

fn personal(draft: &ColumnDraft, scope: &mut Scope) {
    match (draft.personal.with_place(), is_masked(draft)) {
        (Some((at, true)), false) => scope.add(
            at,
            "personal = true needs a mask, or the value would be stored as it is; add mask = \"hmac-sha256\", say",
        ),
        (Some((at, false)), true) => {
            scope.add(at, "personal = false contradicts the mask; what is masked is personal: remove one of the two");
        }
        _ => {}
    }
}

fn kind_holds_mask(draft: &ColumnDraft, kind: Type, mask: &Mask, scope: &mut Scope) {
    let Some(at) = draft.kind.place() else { return };
    let name = mask.name();
    let needed = mask.longest();
    match kind {
        Type::Text => {}
        Type::Inet if *mask == Mask::Truncate => {}
        Type::Varchar(max) if max >= needed => {}
        Type::Varchar(_) => {
            let note = match mask {
                Mask::HmacSha256 { .. } => ": key id, colon, 64 digits; room for a longer key id is wise",
                Mask::KeepLast(_) => ": \"***\" and what is kept",
                _ => "",
            };
            scope.add(
                at,
                format_args!(
                    "{kind} is too short for what \"{name}\" makes, {needed} characters{note}; make it longer, \
                              in the table too"
                ),
            );
        }
        _ => {
            let or_inet = if *mask == Mask::Truncate { "\"inet\", " } else { "" };
            scope.add(
                at,
                format_args!(
                    "{kind} cannot hold what \"{name}\" makes; use {or_inet}\"text\" or \"varchar({needed})\" or longer"
                ),
            );
        }
    }
}

/// A `$` source must give what the column, its mask and its parsing take.
fn source_fits(draft: &ColumnDraft, checked_as: Option<Type>, scope: &mut Scope) {
    let Some((at, SourceDraft::System(system))) = draft.from.with_place() else { return };
    if !system.is_text() && is_masked(draft) {
        scope.add(at, format_args!("\"{system}\" is no text, so it cannot be masked; remove the mask"));
    } else if let Some(kind) = checked_as
        && draft.parse.is_absent()
        && !system_fits(*system, kind)
    {
        scope.add(at, format_args!("\"{system}\" does not fit {kind}; use type = {}", system_types(*system)));
    }
}

fn system_fits(system: System, kind: Type) -> bool {
    /// Characters of a message id: a UUID.
    const MESSAGE_ID: u32 = 36;
    match system {
        System::MessageId => match kind {
            Type::Uuid | Type::Text => true,
            Type::Varchar(max) => max >= MESSAGE_ID,
            _ => false,
        },
        System::SentAt => kind == Type::Timestamptz,
        System::SentDate => kind == Type::Date,
        System::MessageGroupId => kind.is_text(),
        System::ReceiveCount => matches!(kind, Type::SmallInt | Type::Integer | Type::BigInt),
    }
}

fn system_types(system: System) -> &'static str {
    match system {
        System::MessageId => "\"uuid\", \"text\", or \"varchar(36)\" or longer",
        System::SentAt => "\"timestamptz\"",
        System::SentDate => "\"date\"",
        System::MessageGroupId => "\"text\" or \"varchar(128)\"",
        System::ReceiveCount => "\"integer\", \"bigint\" or \"smallint\"",
    }
}

fn parse_fits(draft: &ColumnDraft, kind: Option<Type>, scope: &mut Scope) {
    let Some((at, Parse::Version)) = draft.parse.with_place() else { return };
    if is_masked(draft) {
        scope.add(at, "what is masked cannot be parsed as well; remove parse or the mask");
    } else if let Some(kind) = kind
        && !matches!(kind, Type::Integer | Type::BigInt)
    {
        scope.add(
            at,
            format_args!("a version becomes an integer, which {kind} is not; use type = \"integer\" or \"bigint\""),
        );
    } else if let Some(SourceDraft::System(system)) = draft.from.value() {
        scope.add(at, format_args!("\"{system}\" is taken as it is; remove parse, or read a field or an attribute"));
    }
}

fn canonical(draft: &ColumnDraft, mask: Option<&Mask>, checked_as: Option<Type>, scope: &mut Scope) -> Vec<Canonical> {
    text_only("canonical", &draft.canonical, checked_as, scope);
    let mut forms = draft.canonical.value().cloned().unwrap_or_default();
    if mask == Some(&Mask::Truncate) && !forms.contains(&Canonical::Ip) {
        forms.push(Canonical::Ip);
    }
    if let Some(form) = forms.first() {
        no_form_of_system(draft, *form, scope);
    }
    forms
}

/// What SQS says of a message is stored as it is: it has one spelling already, and is no address.
fn no_form_of_system(draft: &ColumnDraft, form: Canonical, scope: &mut Scope) {
    let form = form.name();
    if let Some((at, SourceDraft::System(system))) = draft.from.with_place()
        && system.is_text()
    {
        let remedy = "read a field or an attribute, or remove canonical and \"truncate\"";
        scope.add(at, format_args!("\"{system}\" is taken as it is, not in the canonical form \"{form}\"; {remedy}"));
    }
    if let Some((at, DefaultDraft::System(system))) = draft.default.with_place()
        && system.is_text()
    {
        let remedy = "use another default, or remove canonical and \"truncate\"";
        scope.add(
            at,
            format_args!("default \"{system}\" is taken as it is, not in the canonical form \"{form}\"; {remedy}"),
        );
    }
}

/// Notes a key that only texts can have.
fn text_only<T>(key: &str, given: &Given<T>, checked_as: Option<Type>, scope: &mut Scope) {
    if let (Some(at), Some(kind)) = (given.place(), checked_as)
        && !kind.is_text()
    {
        scope.add(at, format_args!("{key} works on text, which {kind} is not; remove it, or use type = \"text\""));
    }
}

fn rules(
    draft: &ColumnDraft,
    canonical: &[Canonical],
    kind: Option<Type>,
    checked_as: Option<Type>,
    scope: &mut Scope,
) -> Rules {
    text_only("one_of", &draft.one_of, checked_as, scope);
    text_only("pattern", &draft.pattern, checked_as, scope);
    let limits = limits(draft, checked_as, scope);
    let rules = Rules { one_of: Vec::new(), pattern: draft.pattern.value().cloned(), limits };
    let listed = draft.one_of.value().map(Vec::as_slice).unwrap_or_default();
    // Before a mask a text may be longer than its column.
    if let (Some(kind), Some(Type::Text | Type::Varchar(_))) =
        (if is_masked(draft) { checked_as } else { kind }, checked_as)
    {
        listed_can_pass(listed, kind, canonical, &rules, scope);
    }
    Rules { one_of: listed.iter().map(|text| text.get_ref().clone()).collect(), ..rules }
}

/// Every text of `one_of` must satisfy the other rules, or it could as well be left out.
fn listed_can_pass(listed: &[Spanned<String>], kind: Type, canonical: &[Canonical], rules: &Rules, scope: &mut Scope) {
    let mut seen = HashSet::new();
    for text in listed {
        let shown = shown(text.get_ref());
        if !seen.insert(text.get_ref()) {
            scope.add(text.span(), format_args!("one_of lists {shown} twice; remove one"));
        } else if let Some(breach) = breach_of_text(text.get_ref(), kind, canonical, rules) {
            scope.add(text.span(), format_args!("one_of lists {shown}, which {breach}; mend it or remove it"));
        }
    }
}

/// Why a text could never be a column's value, as the end of a sentence.
fn breach_of_text(text: &str, kind: Type, canonical: &[Canonical], rules: &Rules) -> Option<String> {
    if let Some(form) = canonical.iter().find(|form| !is_canonical(text, **form)) {
        return Some(format!("is not in the canonical form \"{}\"", form.name()));
    }
    if text.contains('\0') {
        return Some("contains NUL".to_owned());
    }
    if let Type::Varchar(max) = kind
        && is_longer_than(text, max)
    {
        return Some(format!("is longer than {kind}"));
    }
    if rules.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
        return Some("does not match the pattern".to_owned());
    }
    let Limits::Length { min, max } = rules.limits else { return None };
    let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    let is_outside = min.is_some_and(|min| length < min) || max.is_some_and(|max| length > max);
    is_outside.then(|| "is shorter than min or longer than max".to_owned())
}

fn is_canonical(text: &str, form: Canonical) -> bool {
    match form {
        Canonical::Ip => text.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().to_string() == text),
        Canonical::Trim => text.trim() == text,
        Canonical::Lower => text.to_lowercase() == text,
        Canonical::Digits => text.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn limits(draft: &ColumnDraft, checked_as: Option<Type>, scope: &mut Scope) -> Limits {
    let Some(kind) = checked_as else { return Limits::None };
    let Some(at) = draft.min.place().or(draft.max.place()) else { return Limits::None };
    if !kind.is_ordered() {
        scope.add(at, format_args!("{kind} has no order, so it takes no min or max; remove them"));
        Limits::None
    } else if kind.is_text() {
        lengths(draft, kind, scope)
    } else {
        range(draft, kind, scope)
    }
}

fn lengths(draft: &ColumnDraft, kind: Type, scope: &mut Scope) -> Limits {
    let mut length = |key: &str, given: &Given<&DeValue>| {
        let (at, literal) = given.with_place()?;
        let length = literal.as_integer().and_then(|n| u32::from_str_radix(n.as_str(), n.radix()).ok());
        if length.is_none() {
            let rule = "for text it is a length in characters, an integer from 0";
            scope.add(at, format_args!("{key} is no length; {rule}, such as {key} = 8"));
        }
        length
    };
    let (min, max) = (length("min", &draft.min), length("max", &draft.max));
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        min_above_max(draft, scope);
    } else if let (Some(min), Type::Varchar(most), Some(at)) = (min, kind, draft.min.place())
        && min > most
    {
        scope.add(at, format_args!("min is longer than {kind} holds, so no value would pass; make it smaller"));
    }
    Limits::Length { min, max }
}

fn range(draft: &ColumnDraft, kind: Type, scope: &mut Scope) -> Limits {
    let mut bound = |key: &str, given: &Given<&DeValue>| {
        let (at, text) = given.with_place()?;
        literal(kind, text).map_err(|fault| scope.add(at, format_args!("{key} {fault}"))).ok()
    };
    let (min, max) = (bound("min", &draft.min), bound("max", &draft.max));
    let order = min.as_ref().zip(max.as_ref()).and_then(|(min, max)| min.compare(max));
    if order.is_some_and(|order| order.is_gt()) {
        min_above_max(draft, scope);
    }
    Limits::Range { min, max }
}

fn min_above_max(draft: &ColumnDraft, scope: &mut Scope) {
    if let Some(at) = draft.min.place() {
        scope.add(at, "min is above max, so no value would pass; swap them");
    }
}

fn default(
    draft: &ColumnDraft,
    canonical: &[Canonical],
    rules: &Rules,
    checked_as: Option<Type>,
    scope: &mut Scope,
) -> Option<DefaultValue> {
    let (at, default) = draft.default.with_place()?;
    if draft.required.value() == Some(&true) {
        scope.add(at.clone(), "a required value has no use for a default; remove default or required");
    }
    let kind = checked_as?;
    match default {
        DefaultDraft::System(system) => default_system(*system, kind, at, scope),
        DefaultDraft::Literal(text) => match literal(kind, text) {
            Err(fault) => {
                scope.add(at, format_args!("default {fault}"));
                None
            }
            Ok(value) => {
                if let Some(breach) = breach(&value, kind, canonical, rules) {
                    scope.add(at, format_args!("default {breach}; use one that passes the column's own rules"));
                }
                Some(DefaultValue::Value(value))
            }
        },
    }
}

fn default_system(system: System, kind: Type, at: Range<usize>, scope: &mut Scope) -> Option<DefaultValue> {
    if !system_fits(system, kind) {
        let types = system_types(system);
        scope.add(at, format_args!("default \"{system}\" does not fit {kind}; use another, or type = {types}"));
    }
    Some(DefaultValue::System(system))
}

/// Why a value breaks the rules, as the end of a sentence.
fn breach(value: &Value, kind: Type, canonical: &[Canonical], rules: &Rules) -> Option<String> {
    match (value, &rules.limits) {
        (Value::Text(text), _) if !rules.one_of.is_empty() && rules.one_of.iter().all(|listed| listed != text) => {
            Some("is not listed in one_of".to_owned())
        }
        (Value::Text(text), _) => breach_of_text(text, kind, canonical, rules),
        (_, Limits::Range { min, max }) => {
            let is_beyond = |limit: &Option<Value>, beyond: Ordering| {
                limit.as_ref().is_some_and(|limit| value.compare(limit) == Some(beyond))
            };
            let is_outside = is_beyond(min, Ordering::Less) || is_beyond(max, Ordering::Greater);
            is_outside.then(|| "is below min or above max".to_owned())
        }
        _ => None,
    }
}
