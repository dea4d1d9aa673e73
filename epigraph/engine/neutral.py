"""Neutral texts: what the states of any input look like, whatever the task.

The states of a language model all point roughly one way. Kinds that compare queries by their direction need to know which
way that is before there is a second task, so they measure from the mean of these texts.
"""

TEXTS = (
    "The train was late again this morning.",
    "How do I change the address on my account?",
    "Scientists report a new way to store solar power.",
    "An unforgettable film with two wonderful leads.",
    "Mix the flour with the eggs and a pinch of salt.",
    "What is the capital of Peru?",
    "The committee will meet on Thursday to discuss the budget.",
    "I would not buy this product a second time.",
    "Born in a small village, she became a painter of landscapes.",
    "def area(width, height): return width * height",
    "The team won the final after extra time.",
    "Please send the invoice to the office in the city.",
    "Shares fell as oil prices rose for the third day.",
    "Why does my card not work abroad?",
    "The patient was given two tablets every six hours.",
    "It is a species of beetle found in the mountains.",
    "Turn left at the bridge and follow the river.",
    "Die Bibliothek ist am Sonntag geschlossen.",
    "Le marché ouvre à huit heures du matin.",
    "Thời tiết hôm nay rất đẹp.",
    "今天的会议改到下午三点。",
    "2 + 2 = 4, and 12 * 12 = 144.",
    "Yes.",
    "He said nothing, closed the door, and walked slowly down the long corridor towards the light.",
)
