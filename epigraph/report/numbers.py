"""Numbers for people: shares, percentage points, bytes, times, counts."""

UNITS = ("B", "KB", "MB", "GB", "TB")


def share_text(value: float) -> str:
    """A number from 0 to 1 with three places: ``.912``."""
    return f"{round(value, 3) + 0.0:.3f}".removeprefix("0")  # + 0.0: no minus before what rounds to nothing


def interval_text(value: float, low: float, high: float) -> str:
    """A share with its bounds: ``.912 [.886–.931]``."""
    return f"{share_text(value)} [{share_text(low)}–{share_text(high)}]"


def percent_points(value: float) -> str:
    """A difference of shares: ``0.6 points``."""
    return f"{100 * value:.1f} points"


def change_text(value: float) -> str:
    """A difference of shares with its sign, in points: ``+0.6``; ``0.0`` where it rounds to nothing."""
    points = round(100 * value, 1)
    return f"{points:+.1f}" if points else "0.0"


def bytes_text(size: float) -> str:
    """Bytes in decimal units: ``92 KB``."""
    for unit in UNITS[:-1]:
        if abs(size) < 1000:
            return f"{size:.1f} {unit}" if unit == "GB" else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} {UNITS[-1]}"


def times_text(ratio: float) -> str:
    """A ratio: ``7.9 times``, ``120 times``."""
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:,.0f} times"


def count_text(number: float) -> str:
    """A large count in powers of ten: ``1.2 × 10¹²``; small ones as they are."""
    if abs(number) < 1e5:
        return f"{number:,.0f}"
    digits = f"{number:.1e}"
    mantissa, power = digits.split("e")
    return f"{mantissa} × 10" + str(int(power)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def seconds_text(seconds: float) -> str:
    """Seconds: ``0.041 s``, ``38 s``, ``310 s``."""
    return f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"
