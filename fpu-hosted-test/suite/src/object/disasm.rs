//! Reads what `objdump -d` prints, GNU's or LLVM's, in Intel syntax, into functions.

use std::{collections::BTreeMap, ops::Range, rc::Rc};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insn {
    pub address: u64,
    /// With its prefixes, as printed: `lock add`.
    pub mnemonic: String,
    pub operands: String,
    /// The address that an operand relative to the instruction pointer means.
    pub slot: Option<u64>,
    /// The source file that it comes from, the innermost if it is inlined, where the program has line tables.
    pub file: Option<Rc<str>>,
}

impl Insn {
    /// Where a jump or call goes, if that is written in it.
    pub fn target(&self) -> Option<u64> {
        self.operands.split_whitespace().next().and_then(hex)
    }
    /// The function that a jump or call goes to, as far as the disassembler knows.
    pub fn target_name(&self) -> Option<&str> {
        let name = self.operands.split_once('<')?.1;
        Some(name.split(['>', '+']).next().unwrap_or(name))
    }
    pub fn is_call(&self) -> bool {
        self.mnemonic.split(' ').any(|word| word.starts_with("call") || word == "lcall")
    }
    pub fn is_return(&self) -> bool {
        self.mnemonic.split(' ').any(|word| word.starts_with("ret"))
    }
    pub fn is_jump(&self) -> bool {
        let word = self.last_word();
        word.starts_with('j') || word.starts_with("loop") || word == "ljmp"
    }
    pub fn is_unconditional_jump(&self) -> bool {
        self.last_word().starts_with("jmp") || self.last_word() == "ljmp"
    }
    /// The mnemonic without prefixes.
    pub fn last_word(&self) -> &str {
        self.mnemonic.rsplit(' ').next().unwrap_or("")
    }
    pub fn is_trap(&self) -> bool {
        matches!(self.last_word(), "ud2" | "ud1" | "int3" | "hlt")
    }
    /// Padding between functions and in front of loops.
    pub fn is_padding(&self) -> bool {
        matches!(self.last_word(), "nop" | "nopw" | "nopl" | "data16" | "cs")
    }
    /// A locked access, or one that is locked without saying so.
    pub fn is_locked(&self) -> bool {
        let xchg = self.last_word() == "xchg" && self.operands.contains('[');
        xchg || self.mnemonic.split(' ').any(|word| word == "lock")
    }
    pub fn is_fence(&self) -> bool {
        matches!(self.last_word(), "mfence" | "lfence" | "sfence" | "serialize" | "cpuid")
    }
    /// Tells whether the instruction writes to memory.
    pub fn is_store(&self) -> bool {
        let reads_only = matches!(self.last_word(), "cmp" | "test" | "lea" | "call" | "push")
            || self.is_jump()
            || self.last_word().starts_with("prefetch")
            || self.is_padding();
        !reads_only && self.destination().contains('[')
    }
    pub fn destination(&self) -> &str {
        self.operands.split(',').next().unwrap_or("").trim()
    }
    /// Tells whether the instruction names a vector, mask or x87 register, or is an x87 or state-moving instruction.
    pub fn touches_fpu(&self) -> bool {
        let word = self.last_word();
        let by_name = (word.starts_with('f') && word != "fs")
            || word.starts_with("xsave")
            || word.starts_with("xrstor")
            || word.starts_with("vzero")
            || word.starts_with("tile")
            || word.ends_with("tilecfg")
            || word == "emms"
            || word.ends_with("mxcsr");
        by_name || registers(&self.operands).any(is_fpu_register)
    }
}

/// The words of an operand list, without what a disassembler adds in `<...>`.
pub fn registers(operands: &str) -> impl Iterator<Item = &str> {
    let end = operands.find('<').unwrap_or(operands.len());
    operands[..end].split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

fn is_fpu_register(word: &str) -> bool {
    let numbered = |prefix| {
        word.strip_prefix(prefix).is_some_and(|n: &str| n.bytes().all(|b| b.is_ascii_digit()))
    };
    // `st` alone is the top of the x87 stack; a mask register has a number.
    ["xmm", "ymm", "zmm", "mm", "tmm", "bnd", "st"].into_iter().any(numbered)
        || (word.len() == 2 && numbered("k"))
}

pub type Functions = BTreeMap<String, Vec<Insn>>;

/// All functions of a disassembly, by symbol. With `objdump -l` each instruction knows its file.
pub fn parse(text: &str) -> Functions {
    let mut functions = Functions::new();
    let mut current: Option<String> = None;
    let mut file: Option<Rc<str>> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = header(trimmed) {
            functions.entry(name.to_owned()).or_default();
            current = Some(name.to_owned());
            // Assembly has no lines, and does not come from the file of the function before it.
            file = None;
        } else if let Some(path) = source_line(trimmed) {
            if file.as_deref() != path {
                file = path.map(Rc::from);
            }
        } else if let (Some(name), Some(mut insn)) = (&current, instruction(trimmed)) {
            insn.file.clone_from(&file);
            if let Some(body) = functions.get_mut(name) {
                body.push(insn);
            }
        }
    }
    functions
}

/// `/path/file.rs:123`, GNU's perhaps with ` (discriminator 4)` and LLVM's after `; `: the path, if it and
/// the number are known.
fn source_line(line: &str) -> Option<Option<&str>> {
    let line = line.strip_prefix("; ").unwrap_or(line);
    let line = line.split_once(" (discriminator").map_or(line, |(line, _)| line);
    let (path, number) = line.rsplit_once(':')?;
    if number == "?" {
        return Some(None);
    }
    // An instruction has a tab after its address.
    let is_path = !path.is_empty() && !path.contains('\t') && hex(path).is_none();
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_path && is_number).then(|| Some(path).filter(|path| *path != "??" && number != "0"))
}

pub fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// Writes the names of the functions into calls and jumps through a slot that the linker fills, as
/// `objdump -R` lists the slots: directly, or by a register.
pub fn resolve(functions: &mut Functions, relocations: &str) {
    let starts: BTreeMap<u64, String> = functions
        .iter()
        .filter_map(|(name, body)| Some((body.first()?.address, name.clone())))
        .collect();
    let mut slots: BTreeMap<u64, String> = BTreeMap::new();
    for line in relocations.lines() {
        let mut words = line.split_whitespace();
        let (Some(slot), Some(_), Some(value)) =
            (words.next().and_then(hex), words.next(), words.next())
        else {
            continue;
        };
        let name = match value.strip_prefix("*ABS*+") {
            Some(address) => hex(address).and_then(|address| starts.get(&address).cloned()),
            // A function of another library.
            None => value.split(['@', '+']).next().map(str::to_owned),
        };
        if let Some(name) = name {
            slots.insert(slot, name);
        }
    }
    name_callees(functions, &|insn| {
        let slot = insn.slot.filter(|_| insn.operands.contains("[rip"))?;
        slots.get(&slot).cloned()
    });
}

/// `0000000000013ac0 <name>:`
fn header(line: &str) -> Option<&str> {
    let (address, rest) = line.split_once(" <")?;
    let name = rest.strip_suffix(">:")?;
    u64::from_str_radix(address, 16).ok().map(|_| name)
}

/// `13ac0:    mov    rax,QWORD PTR [rdi]`, with tabs
fn instruction(line: &str) -> Option<Insn> {
    let (address, rest) = line.split_once(':')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (rest, comment) = rest.split_once('#').unwrap_or((rest, ""));
    let slot = comment.split_whitespace().next().and_then(hex);
    let rest = rest.trim();
    let mut mnemonic = String::new();
    let mut operands = rest;
    loop {
        let (word, after) = operands.split_once(char::is_whitespace).unwrap_or((operands, ""));
        if word.is_empty() {
            return None;
        }
        mnemonic.push_str(word);
        operands = after.trim_start();
        if !is_prefix(word) || operands.is_empty() {
            break;
        }
        mnemonic.push(' ');
    }
    // Blanks inside an operand list differ between the disassemblers.
    let operands = operands.replace(", ", ",");
    Some(Insn { address, mnemonic, operands, slot, file: None })
}

fn is_prefix(word: &str) -> bool {
    let known = [
        "lock", "rep", "repz", "repnz", "repe", "repne", "bnd", "notrack", "xacquire", "xrelease",
        "cs", "ds", "es", "ss", "fs", "gs", "data16", "addr32",
    ];
    known.contains(&word) || word == "rex" || word.starts_with("rex.")
}

/// The 8-byte words of a section as `objdump -s` prints it, by address.
pub fn words(dump: &str) -> BTreeMap<u64, u64> {
    let mut bytes: BTreeMap<u64, u8> = BTreeMap::new();
    for line in dump.lines().filter(|line| line.starts_with(' ')) {
        let mut parts = line.split_whitespace();
        let Some(mut at) = parts.next().and_then(hex) else { continue };
        // Four groups at the most; what follows is the same as text.
        let data = line.trim_start().split("  ").next().unwrap_or("");
        for digits in data.split_whitespace().skip(1).flat_map(|group| group.as_bytes().chunks(2)) {
            let Some(byte) = std::str::from_utf8(digits).ok().and_then(hex) else { break };
            bytes.insert(at, byte as u8);
            at += 1;
        }
    }
    let word = |at: u64| -> Option<u64> {
        (0..8).rev().try_fold(0, |word, n| Some(word << 8 | u64::from(*bytes.get(&(at + n))?)))
    };
    bytes.keys().filter(|at| *at % 8 == 0).filter_map(|at| Some((*at, word(*at)?))).collect()
}

/// The variables and constants of a program, as `objdump -t` lists them.
pub fn objects(symbols: &str) -> Vec<Range<u64>> {
    let object = |line: &str| {
        let (head, tail) = line.split_once(" O ")?;
        let start = head.split_whitespace().next().and_then(hex)?;
        let size = tail.split_whitespace().nth(1).and_then(hex)?;
        Some(start..start + size)
    };
    symbols.lines().filter_map(object).collect()
}

/// Writes the names of the functions into calls through words of a program that is not relocated: directly,
/// or by a register that was loaded from such a word just before, on every way to the call.
pub fn resolve_words(functions: &mut Functions, words: &BTreeMap<u64, u64>) {
    let starts: BTreeMap<u64, String> = functions
        .iter()
        .filter_map(|(name, body)| Some((body.first()?.address, name.clone())))
        .collect();
    name_callees(functions, &|insn| {
        let slot = insn.slot.filter(|_| insn.operands.contains("[rip"))?;
        starts.get(words.get(&slot)?).cloned()
    });
}

/// Writes the name that `callee` gives for an operand into each call and jump with that operand, or by a register that was
/// loaded from it.
fn name_callees(functions: &mut Functions, callee: &dyn Fn(&Insn) -> Option<String>) {
    for body in functions.values_mut() {
        let found: Vec<(usize, String)> = (0..body.len())
            .filter(|&at| body[at].is_call() || body[at].is_jump())
            .filter_map(|at| Some((at, callee(&body[at]).or_else(|| loaded(body, at, callee))?)))
            .collect();
        for (at, name) in found {
            body[at].operands = format!("{} <{name}>", body[at].operands);
        }
    }
}

/// The address from which the register of the call at `at` was loaded, if that is certain: the last write before the
/// call is a load, and no jump from elsewhere leads in between.
fn loaded(body: &[Insn], at: usize, callee: &dyn Fn(&Insn) -> Option<String>) -> Option<String> {
    let register = family(body[at].operands.trim());
    // A call writes to all registers but those that the called function keeps.
    let kept = ["b", "bp", "12", "13", "14", "15"].contains(&register);
    let writes = |insn: &Insn| {
        let named = family(insn.destination()) == register
            && !matches!(insn.last_word(), "push" | "cmp" | "test")
            && !insn.is_call();
        named || (insn.is_call() && !kept)
    };
    let load = (0..at).rev().find(|&before| writes(&body[before]))?;
    let within = |address: u64| body[load].address < address && address <= body[at].address;
    let jumps_in = body.iter().filter(|insn| insn.is_jump() && !within(insn.address));
    let alone = !jumps_in.filter_map(Insn::target).any(within);
    let certain = alone || (kept && first_and_only(body, load, &writes));
    (certain && body[load].last_word() == "mov").then(|| callee(&body[load])).flatten()
}

/// Whether a function writes to a register by the instruction `load` only, which every way through it executes first. What
/// gives the caller its value back, before a return, does not count.
fn first_and_only(body: &[Insn], load: usize, writes: &dyn Fn(&Insn) -> bool) -> bool {
    let gives_back = |at: usize| {
        let rest = body[at..].iter().take_while(|insn| !insn.is_return());
        body[at].last_word() == "pop" && !rest.clone().any(|i| i.is_jump() || i.is_call())
    };
    let others = (0..body.len()).filter(|&at| at != load && writes(&body[at]));
    let before = body[load].address;
    let straight = !body[..load].iter().any(Insn::is_jump)
        && !body
            .iter()
            .filter(|insn| insn.is_jump())
            .filter_map(Insn::target)
            .any(|to| to <= before);
    others.fold(straight, |all, at| all && gives_back(at))
}

/// One name for `rax`, `eax`, `ax`, `al`, and for `r8`, `r8d`, `r8w`, `r8b`.
pub fn family(register: &str) -> &str {
    let numbered =
        register.starts_with('r') && register.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if numbered {
        return register[1..].trim_end_matches(['d', 'w', 'b', 'l']);
    }
    match register {
        "rax" | "eax" | "ax" | "al" | "ah" => "a",
        "rbx" | "ebx" | "bx" | "bl" | "bh" => "b",
        "rcx" | "ecx" | "cx" | "cl" | "ch" => "c",
        "rdx" | "edx" | "dx" | "dl" | "dh" => "d",
        "rsi" | "esi" | "si" | "sil" => "si",
        "rdi" | "edi" | "di" | "dil" => "di",
        "rbp" | "ebp" | "bp" | "bpl" => "bp",
        "rsp" | "esp" | "sp" | "spl" => "sp",
        other => other,
    }
}

/// The function's own name, of a mangled symbol: `_ZN4demo5quiet10quiet_wait17h3ed911e601baf6ecE`.
pub fn last_part(symbol: &str) -> &str {
    let Some(mut rest) = symbol.strip_prefix("_ZN") else { return symbol };
    let mut last = symbol;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Some(length) = rest[..digits].parse::<usize>().ok() else { return last };
        let Some(part) = rest.get(digits..digits + length) else { return last };
        if part.len() == 17 && part.starts_with('h') {
            return last;
        }
        (last, rest) = (part, &rest[digits + length..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_disassemblers_read_the_same() {
        let gnu = "0000000000001000 <f>:\n    1000:\tmov    rax,QWORD PTR [rdi]\n    1003:\tlock add QWORD PTR [rdi],rax\n    1007:\tjne    1003 <f+0x3>\n";
        let llvm = "0000000000001000 <f>:\n    1000:      \tmov\trax, qword ptr [rdi]\n    1003:      \tlock\t\tadd\tqword ptr [rdi], rax\n    1007:      \tjne\t0x1003 <f+0x3>\n";
        let (gnu, llvm) = (parse(gnu), parse(llvm));
        let shape = |f: &Functions| -> Vec<_> {
            f["f"].iter().map(|i| (i.mnemonic.clone(), i.target(), i.is_locked())).collect()
        };
        assert_eq!(shape(&gnu), shape(&llvm));
        assert_eq!(gnu["f"].len(), 3);
        assert!(gnu["f"][1].is_locked() && gnu["f"][1].is_store());
        assert_eq!(gnu["f"][2].target(), Some(0x1003));
        assert_eq!(gnu["f"][2].target_name(), Some("f"));
    }

    #[test]
    fn a_call_through_a_slot_gets_its_name() {
        let text = "1000 <f>:\n 1000:\tcall   QWORD PTR [rip+0x62fa2]        # 926a8 <_DYNAMIC+0x8>\n 1006:\tcall   QWORD PTR [rip+0x1]        # 926b0 <_DYNAMIC+0x10>\n2000 <g>:\n 2000:\tret\n";
        let mut functions = parse(text);
        assert_eq!(functions["f"][0].target_name(), None);
        let relocations = "00000000000926a8 R_X86_64_RELATIVE  *ABS*+0x0000000000002000\n\
                           00000000000926b0 R_X86_64_GLOB_DAT  memcpy@GLIBC_2.14\n";
        resolve(&mut functions, relocations);
        assert_eq!(functions["f"][0].target_name(), Some("g"));
        assert_eq!(functions["f"][1].target_name(), Some("memcpy"));
    }

    #[test]
    fn fpu_registers_are_told_from_others() {
        let touches = |text: &str| {
            instruction(&format!("10:\t{text}")).map(|i| i.touches_fpu()).unwrap_or_default()
        };
        for text in [
            "movups XMMWORD PTR [rdi],xmm0",
            "vmovdqu64 zmm31,ZMMWORD PTR [rsi]",
            "kmovq  rax,k1",
            "fninit",
            "fld    st(1)",
            "xsavec64 [rdi]",
            "ldmxcsr DWORD PTR [rsp]",
        ] {
            assert!(touches(text), "{text}");
        }
        for text in
            ["mov rax,QWORD PTR [rdi+0x10]", "call 1234 <xmm0_helper>", "stc", "mov esi,eax"]
        {
            assert!(!touches(text), "{text}");
        }
    }

    #[test]
    fn calls_through_words_get_names() {
        let text = "1000 <f>:\n 1000:\tmov    rbp,QWORD PTR [rip+0x10]        # 2008 <x>\n 1007:\tcall   rbp\n \
                    1009:\tcall   QWORD PTR [rip+0x8]        # 2008 <x>\n 100f:\tje     1007 <f+0x7>\n \
                    1011:\tmov    rbp,rax\n 1014:\tcall   rbp\n3000 <memcpy>:\n 3000:\tret\n";
        let dump = "\nContents of section .data:\n 2000 00000000 00000000 00300000 00000000  .........0......\n";
        let found = |text: &str| -> Vec<Option<String>> {
            let mut functions = parse(text);
            resolve_words(&mut functions, &words(dump));
            let calls = functions["f"].iter().filter(|insn| insn.is_call());
            calls.map(|insn| insn.target_name().map(str::to_owned)).collect()
        };
        let memcpy = Some("memcpy".to_owned());
        // A jump from outside to the call: what the register holds is not certain any more.
        assert_eq!(found(text), [None, memcpy.clone(), None]);
        let straight = text.replace("je     1007 <f+0x7>", "nop");
        assert_eq!(found(&straight), [memcpy.clone(), memcpy, None]);
    }

    #[test]
    fn lines_of_both_disassemblers_are_read() {
        let gnu = "1000 <f>:\nf():\n/w/src/f.rs:12 (discriminator 3)\n    1000:\tnop\n\
            asm():\n/w/src/insn.rs:7\n    1001:\tfninit\n    1003:\tnop\n\
            /w/src/f.rs:?\n    1004:\tnop\n??:0\n    1005:\tret\n\
            1010 <stub>:\nstub():\n    1010:\tret\n";
        let llvm = "1000 <f>:\n; f():\n; /w/src/f.rs:12\n    1000:      \tnop\n\
            ; /w/src/insn.rs:7\n    1001:      \tfninit\n    1003:      \tnop\n\
            ; /w/src/f.rs:0\n    1004:      \tnop\n; ??:0\n    1005:      \tret\n\
            1010 <stub>:\n; stub():\n    1010:      \tret\n";
        for text in [gnu, llvm] {
            let functions = parse(text);
            let files: Vec<_> = functions["f"].iter().map(|insn| insn.file.as_deref()).collect();
            let (f, insn) = (Some("/w/src/f.rs"), Some("/w/src/insn.rs"));
            assert_eq!(files, [f, insn, insn, None, None]);
            assert_eq!(functions["stub"].len(), 1);
            assert_eq!(
                functions["stub"][0].file, None,
                "what is before the function is not its own"
            );
        }
    }

    #[test]
    fn variables_are_told_from_slots() {
        let symbols = "SYMBOL TABLE:\n\
            000000000011a880 l     O .data\t0000000000000010 F\n\
            0000000000101000 g     F .text\t0000000000000020 f\n";
        let found = objects(symbols);
        assert_eq!((found.len(), found[0].clone()), (1, 0x11a880..0x11a890));
    }

    #[test]
    fn a_register_that_is_written_again_is_not_certain() {
        let text = |between: &str, register: &str| {
            format!(
                "1000 <f>:\n 1000:\tmov    {register},QWORD PTR [rip+0x8]        # 2000 <x>\n \
                 1007:\t{between}\n 1009:\tjmp    {register}\n1100 <g>:\n 1100:\tret\n"
            )
        };
        let words = BTreeMap::from([(0x2000, 0x1100)]);
        for (between, register, name) in [
            ("nop", "rax", Some("g")),
            ("xor    eax,eax", "rax", None),
            ("call   1100 <g>", "rax", None),
            ("call   1100 <g>", "rbx", Some("g")),
        ] {
            let mut functions = parse(&text(between, register));
            resolve_words(&mut functions, &words);
            assert_eq!(functions["f"][2].target_name(), name, "{between}");
        }
    }

    #[test]
    fn a_register_that_is_loaded_once_stays_known_in_a_loop() {
        for (last, name) in [("pop    r13", Some("g")), ("mov    r13,rax", None)] {
            let text = format!(
                "1000 <f>:\n 1000:\tmov    r13,QWORD PTR [rip+0x8]        # 2000 <x>\n \
                 1007:\tcall   r13\n 100a:\tjne    1007 <f+0x7>\n 100c:\t{last}\n 100e:\tret\n1100 <g>:\n 1100:\tret\n"
            );
            let mut functions = parse(&text);
            resolve_words(&mut functions, &BTreeMap::from([(0x2000, 0x1100)]));
            assert_eq!(functions["f"][1].target_name(), name, "{last}");
        }
    }

    #[test]
    fn a_mangled_name_ends_in_the_functions_own() {
        for (symbol, name) in [
            ("_ZN12fpu_examples5quiet10quiet_wait17h3ed911e601baf6ecE", "quiet_wait"),
            ("_ZN3abc45_$LT$impl$u20$fpu_examples..quiet..Worker$GT$11quiet_eager17haa9e980c52e42b85E", "quiet_eager"),
            ("probe_switch_prepare", "probe_switch_prepare"),
            ("_ZN", "_ZN"),
        ] {
            assert_eq!(last_part(symbol), name);
        }
    }
}
