"""Profile texts made by rule from movie data, with no language model.

They let the whole way from text to recommendations run offline and give the same text every time. A user's profile may
hold training interactions only, so the functions here take what was already chosen from them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Iterable, Mapping, Optional, Sequence, Union

# Articles that catalogues move behind a title: "Usual Suspects, The", "Haine, La".
_ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|Gli|Das|Der|Die|Ein|Eine|El|Los|Las|Un|Une|Una|O|Os"
_MOVED_ARTICLE = re.compile(rf"([^()\s][^()]*), ({_ARTICLES})(?=\s*(?:[()]|$))")


def natural_title(title: str) -> str:
    """Put the article of a catalogue title back in front: "Usual Suspects, The" is "The Usual Suspects".

    A second title in brackets is treated the same way: "Hate (Haine, La)" is "Hate (La Haine)".

    Args:
        title: the title as the catalogue has it.

    Returns:
        The title as people say it.
    """
    return _MOVED_ARTICLE.sub(lambda match: _join_article(match[2], match[1]), title.strip())


def item_profile(title: str, year: Optional[Union[int, str]], genres: Sequence[str]) -> str:
    """Write the profile of a movie.

    Args:
        title: its title, with the article in front; empty when unknown.
        year: year of release; None or empty when unknown.
        genres: its genres, in the order to write them; may be empty.

    Returns:
        A text such as "Toy Story (1995) is a movie. Genres: Animation, Children's, Comedy." Unknown parts are left out.
    """
    if title:
        opening = f"{title} ({year}) is a movie." if year else f"{title} is a movie."
    else:
        opening = f"An unnamed movie of {year}." if year else "An unnamed movie."
    return " ".join([opening, *_listing("Genres", genres, ", ")])


def user_profile(
    age: Optional[Union[int, str]],
    occupation: Optional[str],
    liked_titles: Sequence[str],
    liked_genres: Sequence[str],
) -> str:
    """Write the profile of a user.

    Args:
        age: in years; None or empty when unknown.
        occupation: one or a few words; None or empty when unknown.
        liked_titles: titles of the most liked training items, best first; may be empty.
        liked_genres: the most frequent genres among the training items, most frequent first; may be empty.

    Returns:
        A text such as "A user aged 24, occupation: technician. Favourite genres: Drama, Comedy. Liked movies: Fargo;
        The Usual Suspects." Unknown parts are left out. Titles are parted by semicolons, since they may hold commas.
    """
    opening = "A user"
    if age:
        opening += f" aged {age}"
    if occupation:
        opening += f", occupation: {occupation}"
    genres = _listing("Favourite genres", liked_genres, ", ")
    titles = _listing("Liked movies", liked_titles, "; ")
    return " ".join([f"{opening}.", *genres, *titles])


def choose_liked_items(
    ratings: Mapping[str, float], popularity: Mapping[str, int], titles: Mapping[str, str], limit: int = 10
) -> list[str]:
    """Choose the items a user likes most.

    Args:
        ratings: item token -> the user's rating, training interactions only.
        popularity: item token -> number of training interactions of the item.
        titles: item token -> title.
        limit: how many items at most.

    Returns:
        Item tokens, the highest rating first; ties go to the more popular item, then by title, then by token.
    """
    return sorted(ratings, key=lambda item: (-ratings[item], -popularity[item], titles[item], item))[:limit]


def choose_liked_genres(genres: Iterable[Sequence[str]], limit: int = 5) -> list[str]:
    """Choose the genres a user meets most.

    Args:
        genres: the genres of each of the user's training items.
        limit: how many genres at most.

    Returns:
        Genres, the one of most items first; ties in alphabetical order.
    """
    counts = Counter(genre for item_genres in genres for genre in item_genres)
    return sorted(counts, key=lambda genre: (-counts[genre], genre))[:limit]


def _join_article(article: str, title: str) -> str:
    return f"{article}{title}" if article.endswith("'") else f"{article} {title}"


def _listing(label: str, values: Sequence[str], separator: str) -> list[str]:
    """Return the sentence that lists the values, or no sentence where there are none."""
    return [f"{label}: {separator.join(values)}."] if values else []
