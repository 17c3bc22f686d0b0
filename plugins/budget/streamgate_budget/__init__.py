"""A budget of tokens or money for each tenant and period, as a plugin of streamgate."""

from streamgate_budget.plugin import Budget
from streamgate_budget.settings import BudgetSettings, Limit, Price

__all__ = ["Budget", "BudgetSettings", "Limit", "Price"]
