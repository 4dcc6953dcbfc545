//! A contract's text as a contract, or as all its faults. Reading goes in steps: TOML, then each key by itself (`draft`),
//! then each column (`column`), then what columns must agree on among themselves (`whole`).

use toml::de::DeTable;

use super::Contract;
use super::draft::draft;
use super::faults::{Faults, Notes};
use super::whole::contract;

/// Reads a contract from TOML; fails with all faults.
pub(super) fn parse(file: &str, text: &str) -> Result<Contract, Faults> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut notes = Notes::default();
    let draft = draft(document.get_ref(), &mut notes);
    if !errors.is_empty() {
        // What a broken line said is not known, so nothing can be said of what may depend on it.
        return Err(syntax(errors, notes, text).into_faults(file, text));
    }
    match contract(&draft, &mut notes) {
        Some(contract) if notes.is_empty() => Ok(contract),
        _ => Err(notes.into_faults(file, text)),
    }
}

/// The faults of a text that is not TOML, and what could be found in its other lines.
fn syntax(errors: Vec<toml::de::Error>, others: Notes, text: &str) -> Notes {
    let mut notes = Notes::default();
    for error in errors {
        let what_to_do = match error.message() {
            "duplicate key" => "it is given twice, remove one",
            unclosed if unclosed.starts_with("invalid basic string") => "close the quotes",
            _ => "mend this line",
        };
        notes.add(error.span().unwrap_or_default(), format!("not TOML: {}; {what_to_do}", error.message()));
    }
    notes.keep_first_of_line(text);
    notes.add_elsewhere(others, text);
    notes
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::{Canonical, Column, DefaultValue, Mask, Node, Once, Parse, Source, System, UnknownFields};
    use super::*;
    use crate::pipeline::value::Type;

    /// The fixtures with an ending.
    fn fixtures(ending: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contracts/faulty");
        let mut paths: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|found| found == ending));
        paths.sort();
        paths
    }

    /// Compares all faults of a file with the text beside it. With `UPDATE_EXPECTED` set the text is written instead.
    fn check_faulty(path: &Path) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let faults = Contract::parse(name, &std::fs::read_to_string(path).unwrap()).expect_err(name);
        let found = format!("{faults}\n");
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&expected).unwrap_or_default(), "{name}");
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_its_remedy() {
        let files = fixtures("toml");
        assert!(!files.is_empty());
        files.iter().for_each(|path| check_faulty(path));
        let orphans: Vec<PathBuf> =
            fixtures("expected").into_iter().filter(|path| !path.with_extension("toml").exists()).collect();
        assert!(orphans.is_empty(), "{orphans:?} have no contract");
    }

    /// A contract of these columns.
    fn parsed(columns: &str) -> Contract {
        let text = format!("table = 't'\nonce.ledger = 'l'\n{columns}");
        Contract::parse("test.toml", &text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn one(keys: &str) -> Column {
        parsed(&format!("[columns.x]\n{keys}")).columns.remove(0)
    }

    #[test]
    fn the_built_in_contract_has_no_fault() {
        let contract = Contract::built_in();
        assert_eq!(contract.table.quoted(), "\"user_logins\"");
        assert_eq!(contract.unknown_fields, UnknownFields::Reject);
        let columns: Vec<String> = contract.columns.iter().map(|c| format!("{} {}", c.name, c.kind)).collect();
        let expected = [
            "message_id uuid",
            "user_id varchar(128)",
            "device_type varchar(32)",
            "masked_ip varchar(256)",
            "masked_device_id varchar(256)",
            "locale varchar(32)",
            "app_version integer",
            "create_date date",
        ];
        assert_eq!(columns, expected);
        let required: Vec<bool> = contract.columns.iter().map(|c| c.required).collect();
        assert_eq!(required, [true, true, false, true, true, false, false, false]);
        assert_eq!(contract.columns[3].canonical, [Canonical::Ip]);
        assert_eq!(contract.columns[3].mask, Some(Mask::HmacSha256 { domain: "ip".to_owned() }));
        assert_eq!(contract.columns[4].mask, Some(Mask::HmacSha256 { domain: "device_id".to_owned() }));
        assert_eq!(contract.columns[6].parse, Some(Parse::Version));
        assert_eq!(contract.columns[7].default, Some(DefaultValue::System(System::SentDate)));
    }

    #[test]
    fn the_reference_shows_a_contract_without_fault() {
        let reference = include_str!("../../../docs/CONTRACT.md");
        let (example, _) = reference.split_once("```toml\n").unwrap().1.split_once("```").unwrap();
        let contract = Contract::parse("docs/CONTRACT.md", example).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!((contract.columns.len(), contract.fields.len()), (11, 9));
    }

    #[test]
    fn the_reference_speaks_of_every_key_and_word() {
        let reference = include_str!("../../../docs/CONTRACT.md");
        let words = super::super::draft::words();
        let unsaid: Vec<&str> = words
            .filter(|word| !reference.contains(&format!("`{word}`")) && !reference.contains(&format!("\"{word}\"")))
            .collect();
        assert!(unsaid.is_empty(), "docs/CONTRACT.md does not mention {unsaid:?}");
    }

    #[test]
    fn a_key_column_that_is_not_declared_comes_first_and_holds_the_message_id() {
        let contract = Contract::parse("", "table = 's.t'\nonce.column = 'id'\ncolumns.a.type = 'text'").unwrap();
        assert_eq!(contract.once, Once::Column(0));
        let key = &contract.columns[0];
        assert_eq!((key.name.as_str(), key.kind, key.required), ("id", Type::Uuid, true));
        assert_eq!(key.source, Source::System(System::MessageId));
        assert!(contract.ledger().is_none());
        assert_eq!(contract.table.to_string(), "s.t");
    }

    #[test]
    fn columns_keep_the_order_of_the_file() {
        let contract = parsed("[columns.b]\ntype='text'\n[columns.a]\ntype='text'\n[columns.c]\ntype='text'");
        let names: Vec<&str> = contract.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!(contract.ledger().unwrap().quoted(), "\"l\"");
    }

    #[test]
    fn paths_make_a_sorted_tree_and_equal_paths_one_field() {
        let contract = parsed(
            "columns.a = { from = 'u.mail', type = 'text' }\ncolumns.b = { from = ['u', 'a.b'], type = 'text' }\n\
             columns.c = { from = 'u.mail', type = 'varchar(9)' }\ncolumns.d = { from = ['$x'], type = 'text' }\n\
             columns.'e.f' = { type = 'text' }",
        );
        let names: Vec<&str> = contract.fields.names().iter().map(|name| name.as_str()).collect();
        assert_eq!(names, ["u.mail", "u.a.b", "$x", "e.f"]);
        assert_eq!(contract.columns[2].source, Source::Field(0));
        let [(x, Node::Leaf(2)), (e, Node::Leaf(3)), (u, Node::Branch(inner))] = contract.fields.root() else {
            panic!("{:?}", contract.fields.root())
        };
        assert_eq!((x.as_str(), e.as_str(), u.as_str()), ("$x", "e.f", "u"));
        let inner: Vec<&str> = inner.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(inner, ["a.b", "mail"]);
    }

    #[test]
    fn a_label_is_what_the_contract_calls_the_source() {
        let contract = parsed(
            "columns.a = { from = 'u.mail', type = 'text' }\ncolumns.b = { from = '$sent_at', type = 'timestamptz' }\n\
             columns.c = { from = '$attribute.a-b.c', type = 'integer' }",
        );
        let labels: Vec<String> = contract.columns.iter().map(|column| contract.label(column).to_string()).collect();
        assert_eq!(labels, ["u.mail", "$sent_at", "$attribute.a-b.c"]);
    }

    #[test]
    fn names_are_quoted_for_sql() {
        let contract =
            Contract::parse("", "table = 'My Schema.ta\"ble'\nonce.ledger = 'l'\n[columns.'sel\"ect']\ntype = 'text'")
                .unwrap();
        assert_eq!(contract.table.quoted(), r#""My Schema"."ta""ble""#);
        assert_eq!(contract.columns[0].quoted(), r#""sel""ect""#);
    }

    #[test]
    fn a_pattern_must_match_the_whole_value() {
        let pattern = one("type = 'text'\npattern = 'a|bc'").rules.pattern.unwrap();
        for (text, matches) in [("a", true), ("bc", true), ("ac", false), ("bca", false), ("a\n", false)] {
            assert_eq!(pattern.is_match(text), matches, "{text:?}");
        }
    }

    #[test]
    fn truncate_implies_the_canonical_form_of_addresses() {
        assert_eq!(one("type = 'inet'\nmask = 'truncate'").canonical, [Canonical::Ip]);
        let trimmed = one("type = 'varchar(19)'\nmask = 'truncate'\ncanonical = ['trim', 'ip']");
        assert_eq!(trimmed.canonical, [Canonical::Trim, Canonical::Ip]);
    }

    #[test]
    fn a_masked_value_is_checked_as_text_of_any_length() {
        let column = one("type = 'varchar(66)'\nmask = 'hmac-sha256'\nmax = 500\ndomain = 'd'\npersonal = true");
        assert_eq!(column.checked_as(), Type::Text);
        assert_eq!(column.room_for_key_id(), Some(1));
        assert_eq!(column.mask, Some(Mask::HmacSha256 { domain: "d".to_owned() }));
        assert_eq!(one("type = 'varchar(7)'\nkeep_last = 4").mask, Some(Mask::KeepLast(4)));
        assert_eq!(one("type = 'varchar(64)'\nmask = 'sha256'\nunkeyed = 'accepted'").mask, Some(Mask::Sha256));
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_no_fault() {
        let text = "\u{feff}table = 't'\r\nonce.ledger = 'l'\r\ncolumns.a.type = 'text'\r\n";
        assert!(Contract::parse("", text).is_ok());
        let fault = &Contract::parse("", &text.replace("table", "tabel")).unwrap_err().list()[0].clone();
        assert_eq!((fault.line, fault.column), (1, 1));
    }

    #[test]
    fn a_text_cut_off_anywhere_is_read_or_refused_with_places_inside_it() {
        let text = include_str!("../../../contract.toml");
        for (end, _) in text.char_indices() {
            let Err(faults) = Contract::parse("", &text[..end]) else { continue };
            let lines = text[..end].matches('\n').count() + 1;
            assert!(faults.list().iter().all(|fault| fault.line <= lines), "{end}: {faults}");
        }
    }

    #[test]
    fn deep_and_huge_texts_are_refused_or_read_in_time() {
        let deep = |open: &str, close: &str| format!("table = {}{}", open.repeat(100_000), close.repeat(100_000));
        for text in [deep("[", "]"), deep("{a=", "}"), format!("{}=1", vec!["a"; 100_000].join("."))] {
            assert!(Contract::parse("", &text).is_err());
        }
        let many: String = (0..20_000).map(|i| format!("[columns.c{i}]\ntype = 'text'\n")).collect();
        let faults = Contract::parse("f", &format!("table='t'\nonce.ledger='l'\n{many}")).unwrap_err();
        assert_eq!(faults.list().len(), 1, "{faults}");
        let path = format!("from = [{}]\ntype = 'text'", vec!["'a'"; 100_000].join(","));
        assert!(Contract::parse("", &format!("table='t'\nonce.ledger='l'\n[columns.x]\n{path}")).is_err());
    }
}
