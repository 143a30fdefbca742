"""A writer: an item's profile is its title, a user's the titles of some training items."""

from collections.abc import Mapping

from recbole_rlmrec.profile.prompt import by_token
from recbole_rlmrec.profile.record import Profile
from recbole_rlmrec.profile.writer import RuleWriter, Task
from recbole_rlmrec.sides import Side


class TitleWriter(RuleWriter):
    known_as = "titles"

    def profiles(
        self, task: Task, side: Side, item_profiles: Mapping[str, str]
    ) -> tuple[list[Profile], dict[str, str]]:
        corpus, used = task.corpus, {}
        if side == "item":
            texts = {token: item.title for token, item in corpus.items.items()}
        else:
            known = [each for each in corpus.training if each.item in item_profiles]
            used = {user: {each.item for each in reviews} for user, reviews in by_token(known, "user").items()}
            texts = {user: "; ".join(sorted(item_profiles[item] for item in items)) for user, items in used.items()}
        found = [self.profile_of(corpus, token, text, used.get(token, ())) for token, text in texts.items() if text]
        return found, {token: "no title" for token, text in texts.items() if not text}
