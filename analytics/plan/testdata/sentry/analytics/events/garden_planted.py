from __future__ import annotations

from kitchen import analytics


class GardenPlantedEvent(analytics.Event):
    """Somebody planted a garden of their own.

    More words that say nothing to a reader of the plan.
    """

    type = "garden.planted"

    attributes = (
        analytics.Attribute("user_id", type=int, required=False),  # None, if nobody was logged in
        analytics.Attribute("default_user_id", type=int),
        analytics.Attribute("garden_id"),
        analytics.Attribute("area", type=float, required=False),
        analytics.Attribute('organic', type=bool),
        analytics.Attribute('mobile', type=bool, required=False),
        analytics.Map(
            "soil",
            (
                analytics.Attribute("kind"),
                analytics.Attribute("depth", int, required=False),
            ),
        ),
        analytics.Attribute("api_token", required=False),
    )


analytics.register(GardenPlantedEvent)
