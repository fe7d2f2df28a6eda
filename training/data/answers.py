"""Questions whose answers stand in a text, made from texts that hold them.

Six sources, each a generator of (key, question, context, answer): the key decides what is held out, so that neither a
held-out question nor its context's page is seen in training. The questions are made by rules; what people would ask is
more varied, and the card says so.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from training.data.entities import Tagged, entities, spans_of
from training.data.files import read_json_lines
from training.data.labelled import nli
from training.data.pages import DOCUMENTATION, pages
from training.data.pairs import answer_of, command_pages, question_of, says_nothing
from training.data.prose import cut, sentences
from training.data.splits import Split, split_of
from training.data.verbs import BASE_FORM

LONGEST = 1000  # characters of a context


class Answered(NamedTuple):
    question: str
    context: str
    answer: str
    start: int  # of the answer's first character in the context
    source: str
    split: Split


Made = tuple[str, str, str]  # question, context, answer


def answers(folder: Path, split: Split) -> Iterator[Answered]:
    """All questions, each once; where an answer occurs several times in its context, its first place counts, and those
    that occur more than three times are left out."""
    makers: dict[str, Iterable[Made]] = {
        "names": _of_names(folder, split),
        "facts": _of_facts(folder, split),
        "definitions": _of_definitions(folder, split),
        "medquad": _of_medicine(folder, split),
        "tldr": _of_commands(folder, split),
        "parameters": _of_parameters(folder, split),
    }
    seen: set[tuple[str, str]] = set()
    for source, made in makers.items():
        for question, context, answer in made:
            start = context.find(answer)
            known = (question.lower(), answer)
            if start < 0 or not 1 < len(answer) <= 250 or len(context) > LONGEST or context.count(answer) > 3:
                continue
            if known not in seen and len(question.split()) > 2 and len(question) <= LONGEST // 5:
                seen.add(known)
                yield Answered(question, context, answer, start, source, split)


def _among(text: str, others: list[str], rng: Random) -> str:
    """The text with up to three others around it, in a random order, as long as all fit."""
    chosen = [text]
    for other in rng.sample(others, min(len(others), rng.choice((0, 1, 2, 3)))):
        if other not in chosen and sum(map(len, chosen)) + len(other) + 4 <= LONGEST:
            chosen.insert(rng.randint(0, len(chosen)), other)
    return " ".join(chosen)


_OPENING = re.compile(
    r"(?:The|An?|This|These|Those|That|His|Her|Their|Its|It|He|She|They|In|On|At|By|For|From|With|To|As|After|Before|During"
    r"|Some|Many|Most|All|Each|Both|One|Two|Other|Another|Since|Until|When|While|Although|Such|Also)\b"
)
_PRONOUN = re.compile(r"(?i)(?:he|she|it|they|this|these|those|we|i|you|who|which|his|her|their|its|there)\b")


def _lower_first(text: str) -> str:
    """Starting small, unless the first word may be a name."""
    return text[:1].lower() + text[1:] if _OPENING.match(text) else text


def _lower(task: str) -> str:
    """An instruction, starting small unless with an abbreviation."""
    return task if re.match(r"\w?[A-Z]", task[1:]) else task[:1].lower() + task[1:]


# Sentences with marked names

_WHO = {"PER": "Who", "ORG": "Which organization", "LOC": "Where", "MISC": "What"}
_DOES = re.compile(
    r"(?:is|was|were|are|has|had|can|could|will|would|became|began|also|later|then|" + "|".join(BASE_FORM) + r")\b"
)


def _of_names(folder: Path, split: Split) -> Iterator[Made]:
    """ "Kitt was elected." -> Who was elected? "She was born in Galway." -> Where was she born? Else the clause around
    a name with the question word in front. Sentences of one set stand beside each other as context."""
    found = [one for one in entities(folder, split) if one.source in ("wikigold", "crossner") and len(one.tokens) > 6]
    texts = [spans_of(one)[0] for one in found]
    for number, one in enumerate(found):
        rng = Random(texts[number])
        near = [text for text in texts[max(0, number - 6) : number + 7] if text != texts[number]]
        for question, answer in _asked_of_names(one, rng):
            yield question, _among(texts[number], near, rng), answer


def _asked_of_names(one: Tagged, rng: Random) -> Iterator[tuple[str, str]]:
    text, names = spans_of(one)
    for number, (start, end, kind) in enumerate(names):
        name = text[start:end]
        before, behind = text[:start], text[end:]
        if text.count(name) > 1 or len(name) < 3 or behind[:1].isalnum():
            continue
        clause_end = re.search(r"[;:]|, (?:but|and|which|who|where|while|when|although|with)\b|[.?!]$", behind)
        rest = behind[: clause_end.start() if clause_end else len(behind)].strip()
        if before in ("", "The ", "the ") and _DOES.match(rest):
            word = "Who" if kind == "PER" else rng.choice(("What", "Which " + _noun(kind)))
            yield f"{word} {rest.strip(' ,')}?", name
            continue
        match = re.match(r"^(.{3,60}?) (was|were|is|are) (.{3,80}?) (?:in|at|near|from) (?:the )?$", before)
        if match and kind == "LOC" and "," not in match[1]:
            yield f"Where {match[2]} {_lower_first(match[1])} {match[3]}?", name
            continue
        if number % 2 == 0:  # not more of the awkward ones than of the others
            lead = re.split(r"[;:]|, (?:but|and|which|who|where|while|when)\b", before)[-1].strip(" ,")
            if len(lead.split()) > 3 and len(rest) + len(lead) < 160 and (kind != "LOC" or rng.random() < 0.7):
                word = _WHO[kind] if kind != "LOC" else rng.choice(("Where", "Which place", "Which country"))
                yield f"{word} {_lower_first(lead)} {rest}".strip(" ,.") + "?", name


def _noun(kind: str) -> str:
    return {"ORG": "organization", "LOC": "place", "MISC": "one", "PER": "person"}[kind]


# Sentences with a date, a number or a reason

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = rf"(?:\d{{1,2}} )?(?:{_MONTH}(?: \d{{1,2}},?)? )?(?:1[0-9]|20)\d\d"
_PASSIVE = re.compile(
    rf"^(?P<subject>[^,;]{{2,60}}?) (?P<be>was|were) (?P<rest>[^,;]{{3,80}}?) (?:in|on|by) (?P<date>{_DATE})\b"
)
_VERB = rf"(?P<verb>{'|'.join(BASE_FORM)})"
_ACTIVE = re.compile(rf"^(?P<subject>[^,;]{{2,50}}?) {_VERB}(?P<rest> [^,;]{{0,80}}?)? (?:in|on) (?P<date>{_DATE})\b")
_FRONTED = re.compile(rf"^(?:In|On) (?P<date>{_DATE}),? (?P<subject>[^,;]{{2,50}}?) {_VERB} (?P<rest>[^,;.]{{3,100}})")
_HELPS = re.compile(r"\b(?:is|was|are|were|be|been|has|have|had|who|which|that|to|and)\b")
_COUNTED = re.compile(
    r"^(?P<subject>[^,;]{3,50}?) (?P<verb>has|have|had|contains|includes) (?:a total of |about |over |more than )?"
    r"(?P<count>\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|twelve) (?P<noun>[a-z]+s)\b"
)
_BECAUSE = re.compile(
    r"^(?P<subject>[^,;]{3,60}?) (?P<be>is|are|was|were) (?P<rest>[^,;]{3,90}?) because (?P<why>[^;.]{10,150})"
)
_KNOWN = re.compile(
    r"^(?P<subject>[^,;]{3,60}?) (?P<be>is|was) (?:best |also |commonly )?known (?P<as>as|for) (?P<what>[^,;.]{4,80})"
)


def _of_facts(folder: Path, split: Split) -> Iterator[Made]:
    """Dates, counts and reasons in sentences of ConjNLI (which come from Wikipedia), wikigold and CrossNER."""
    texts = [one.premise for one in nli(folder, split) if one.source == "conjnli" and " ' " not in one.premise]
    texts += [spans_of(one)[0] for one in entities(folder, split) if one.source in ("wikigold", "crossner")]
    texts = [text for text in dict.fromkeys(texts) if 30 < len(text) < 400]
    for text in texts:
        if _PRONOUN.match(text):
            continue
        rng = Random(text)
        for question, answer in _asked_of_facts(text):
            yield question, _among(text, rng.sample(texts, 4), rng), answer


def _asked_of_facts(text: str) -> Iterator[tuple[str, str]]:
    if match := _PASSIVE.match(text):
        yield f"When {match['be']} {_lower_first(match['subject'])} {match['rest']}?", match["date"]
    elif (match := _ACTIVE.match(text)) and not _HELPS.search(match["subject"]):
        subject, verb, rest = match["subject"], BASE_FORM[match["verb"]], match["rest"] or ""
        yield f"When did {_lower_first(subject)} {verb}{rest}?", match["date"]
    elif (match := _FRONTED.match(text)) and not _HELPS.search(match["subject"]):
        subject, verb, rest = _lower_first(match["subject"]), BASE_FORM[match["verb"]], match["rest"]
        yield f"When did {subject} {verb} {rest}?", match["date"]
        yield f"What did {subject} do in {match['date']}?", f"{match['verb']} {rest}"
    if match := _COUNTED.match(text):
        verb = {"has": "does", "contains": "does", "includes": "does", "have": "do", "had": "did"}[match["verb"]]
        base = {"contains": "contain", "includes": "include"}.get(match["verb"], "have")
        yield f"How many {match['noun']} {verb} {_lower_first(match['subject'])} {base}?", match["count"]
    if match := _BECAUSE.match(text):
        yield f"Why {match['be']} {_lower_first(match['subject'])} {match['rest']}?", match["why"]
    if match := _KNOWN.match(text):
        yield f"What {match['be']} {_lower_first(match['subject'])} known {match['as']}?", match["what"]


# What something is

_DEFINES = re.compile(
    r"^(?:An? |The )?(?P<what>[\w+#./'-]+(?: [\w+#./'-]+){0,5}?)(?: \([^()]{2,40}\))?,? (?P<be>is|are|was|were) "
    r"(?P<said>(?:an?|the|any|one of) [^.;]{15,220}?)(?:\.|;|, (?:which|who|that|and|but|where)\b)"
)
_VAGUE = re.compile(r"(?i)\b(this|that|it|there|these|those|he|she|they|following|here|what|which|who|we|you|i)\b")


def _of_definitions(folder: Path, split: Split) -> Iterator[Made]:
    """ "A breaking mechanism is a ..." -> What is a breaking mechanism? And, of pages on functions and commands, whose
    first sentence says what they do: What does Copy-Item do?"""
    for source in DOCUMENTATION:
        for page in pages(folder, source, split):
            texts = [block.text for block in page.blocks if 40 < len(block.text) < 700]
            rng = Random(page.title)
            for number, text in enumerate(texts[:12]):
                if asked := _definition(text) or (_purpose(page.title, text) if number == 0 else None):
                    near = texts[max(0, number - 2) : number] + texts[number + 1 : number + 3]
                    yield asked[0], _among(text, near, rng), asked[1]
    premises = [one.premise for one in nli(folder, split) if one.source == "conjnli" and len(one.premise) < 500]
    for premise in dict.fromkeys(premises):
        if asked := _definition(premise):
            rng = Random(premise)
            yield asked[0], _among(premise, rng.sample(premises, 4), rng), asked[1]


def _definition(text: str) -> tuple[str, str] | None:
    match = _DEFINES.match(text)
    if not match or _VAGUE.search(match["what"]) or not re.search("[a-zA-Z]{3}", match["what"]):
        return None
    article = re.match(r"(?:An?|The) ", text)
    subject = (article[0].lower() if article else "") + (match["what"] if article else _lower_first(match["what"]))
    return f"{'Who' if _is_person(match['said']) else 'What'} {match['be']} {subject}?", match["said"]


_PEOPLE = re.compile(
    r"(?:an?|the|one of the) (?:[\w-]+ ){0,4}?(?:act(?:or|ress)|singer|writer|author|poet|politician|player|footballer"
    r"|artist|composer|scientist|lawyer|musician|painter|journalist|historian|engineer|novelist|officer|manager|producer"
    r"|philosopher|mathematician|physicist|businessman|entrepreneur|professor|king|queen|bishop|coach|director)\b"
)


def _is_person(said: str) -> bool:
    return bool(_PEOPLE.match(said))


def _purpose(title: str, text: str) -> tuple[str, str] | None:
    first = next(sentences(text), "")
    if re.match(r"[A-Z][a-z]+s\b", first) and re.match(r"[\w:-]+(?: [\w:<>-]+)?$", title) and 20 < len(first) < 200:
        name = re.sub(" (Class|Structure|Function|Interface|Method)$", "", title)
        return f"What does {name} do?", first.rstrip(".")
    return None


# Medicine

_GENES = r"(?:[Mm]utations|changes) in (?:the )?([A-Z][A-Z0-9]{2,}(?:,? (?:and|or) [A-Z0-9]{3,})?) gene"
_OFTEN = r"((?:about |approximately |an estimated )?(?:1 in [\d,]+|[\d,]+ (?:people|cases|individuals|families)))"
_MEDICAL = {
    "inheritance": re.compile(r"\b((?:autosomal|X-linked) (?:dominant|recessive)|X-linked|mitochondrial)"),
    "genetic changes": re.compile(rf"\b{_GENES}"),
    "causes": re.compile(r"\b(?:is|are) (?:usually |often |most often )?caused by ([^.;]{5,150})"),
    "frequency": re.compile(rf"\b{_OFTEN}"),
}


def _of_medicine(folder: Path, split: Split) -> Iterator[Made]:
    """The question of MedQuAD, and the sentence or phrase of its answer that says it; some other answers beside it."""
    asked: list[Made] = []
    for row in read_json_lines(folder / "retrieval" / "medquad" / "medquad.jsonl"):
        if split_of(f"medquad {row['focus']}") != split:
            continue
        question, text = question_of(row["question"]), cut(answer_of(row["answer"]), 500)
        pattern = _MEDICAL.get(row["qtype"])
        if pattern and (match := pattern.search(text)):
            asked.append((question, text, match[1].removeprefix("an ").strip()))
        elif row["qtype"] in ("information", "symptoms", "treatment", "outlook", "prevention", "exams and tests"):
            first = next(sentences(text), "").rstrip(".")
            if 25 < len(first) < 200 and len(text) > 1.5 * len(first) and "Human Phenotype Ontology" not in first:
                asked.append((question, text, first))
    texts = [text for _, text, _ in asked]
    for question, text, answer in asked:
        rng = Random(question)
        yield question, _among(text, rng.sample(texts, 3), rng), answer


# Commands and their parameters


def _of_commands(folder: Path, split: Split) -> Iterator[Made]:
    """How do I list all files? Out of a page with several tasks and their command lines."""
    for page in command_pages(folder):
        if page.split != split or len(page.examples) < 2:
            continue
        rng = Random(page.command + page.description)
        shown = rng.sample(page.examples, min(len(page.examples), rng.randint(3, 6)))
        listed = " ".join(f"{task}: {line}." if rng.random() < 0.5 else f"{task}: {line}" for task, line in shown)
        context = f"{page.command}: {page.description}. {listed}"
        for task, line in [one for one in shown if not says_nothing(one[0])][:2]:
            question = rng.choice(("How do I {}?", "How can I {}?", "What is the command to {}?", "How to {}?"))
            yield question.format(_lower(re.sub(r" \([^)]*\)$", "", task))), context, line


def _of_parameters(folder: Path, split: Split) -> Iterator[Made]:
    """What does the parameter -Path of Copy-Item do?"""
    for page in pages(folder, "ms-powershell-docs", split):
        said: dict[str, str] = {}
        for heading, text in page.blocks:
            if heading.startswith("-") and heading not in said:
                said[heading] = cut(text, 250)
        texts = [f"{heading} {text}" for heading, text in said.items()]
        rng = Random(page.title)
        for heading, text in islice(said.items(), 8):
            question = rng.choice(("What does the {} parameter do?", "What is {} for?", "What does {} do?"))
            context = _among(f"{heading} {text}", [other for other in texts if not other.startswith(heading)], rng)
            yield question.format(heading), context, next(sentences(text), "").rstrip(".")
