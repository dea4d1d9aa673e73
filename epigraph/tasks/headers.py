"""The headers that say by themselves what a column is.

The first name of a group is its canonical one; it wins over the others where a file has several.
"""

import re

TEXT = (
    *("text", "sentence", "review", "message", "question", "utterance", "query", "content", "document", "comment"),
    *("tweet", "post", "body", "email", "feedback", "complaint", "ticket", "transcript", "statement", "paragraph"),
    *("passage", "article", "abstract", "headline", "title", "description", "snippet", "input", "prompt", "texts"),
    *("sentences", "review_text", "text_content", "input_text", "request", "conversation", "sms", "news", "claim"),
    *("văn_bản", "van_ban", "câu", "nội_dung", "noi_dung", "bình_luận", "binh_luan", "đánh_giá", "tin_nhắn", "câu_hỏi"),
    *("文本", "句子", "内容", "评论", "问题", "消息", "文本内容", "正文", "标题"),
)
LABEL = (
    *("label", "category", "class", "intent", "sentiment", "topic", "team", "labels", "department", "queue", "tag"),
    *("polarity", "emotion", "rating", "stars", "score", "domain", "type", "target", "class_label", "gold_label"),
    *("coarse_label", "fine_label", "category_name", "class_name", "priority", "genre", "language", "stance", "y"),
    *("nhãn", "nhan", "chủ_đề", "chu_de", "cảm_xúc", "phân_loại", "phan_loai", "loại"),
    *("标签", "类别", "分类", "情感", "意图", "类型", "主题"),
)
OUTPUT = ("output", "target", "completion", "answer", "response", "summary", "highlights", "translation")
REFERENCES = ("references", "refs", "reference")
WORDS = ("label_text", "label_name", "label_words")
IGNORED = re.compile(
    r"(id|.*_id|idx|index|uuid|guid|unnamed_\d+|unnamed:_\d+|split|row|line|no|stt|created_at|date|timestamp)$"
)

PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("passage", "question"),
    ("context", "question"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
)
IN_OUT = (
    ("input", "output"),
    ("input", "target"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("prompt", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("instruction", "response"),
    ("source", "target"),
    ("src", "tgt"),
    ("document", "summary"),
    ("article", "summary"),
    ("article", "highlights"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("text", "target"),
    ("text", "output"),
    ("user", "assistant"),
)


def plain(header: str) -> str:
    """A header as it is compared: lower case, words joined by underscores."""
    return re.sub(r"[\s\-]+", "_", header.strip().casefold())


def find(name: str, columns: tuple[str, ...]) -> str | None:
    """The column of this name: exactly so, else without regard to case, spaces and hyphens."""
    if name in columns:
        return name
    return next((column for column in columns if plain(column) == plain(name)), None)


def find_all(names: tuple[str, ...], columns: tuple[str, ...]) -> list[str]:
    """The columns that have one of these names, in the order of the names."""
    found = (find(name, columns) for name in names)
    return list(dict.fromkeys(column for column in found if column is not None))


def named(names: tuple[str, ...], columns: tuple[str, ...]) -> list[str]:
    """The columns of a group; only the canonical one where it is there."""
    found = find_all(names, columns)
    return found[:1] if found and plain(found[0]) == names[0] else found


def synonyms(field: str) -> tuple[str, ...]:
    """Names that may stand for a template's field: those of the group it belongs to, or none."""
    if plain(field) in ("text", "input"):
        return TEXT
    return ()
